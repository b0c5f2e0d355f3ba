use super::*;
use proptest::prelude::*;

fn cutter(format: Format, rows: usize) -> Cutter {
    Cutter::new(format, Limits { rows, bytes: 1 << 20, row_bytes: 64 })
}

fn cut_all(format: Format, rows: usize, text: &str, step: usize) -> Result<Vec<Cut>, CutError> {
    let mut cutter = cutter(format, rows);
    let mut cuts = Vec::new();
    for piece in text.as_bytes().chunks(step) {
        cuts.extend(cutter.push(piece)?);
    }
    cuts.extend(cutter.finish()?);
    Ok(cuts)
}

fn bodies(cuts: &[Cut]) -> Vec<&str> {
    cuts.iter().map(|cut| std::str::from_utf8(&cut.body).expect("cut between characters")).collect()
}

#[test]
fn every_csv_body_has_the_header_and_whole_rows() {
    let text = "a,b\n1,\"x\ny\"\n2,\"say \"\"hi\"\"\n\"\n3,5\" pipe\n4,z";
    for step in [1, 2, 3, 7, 100] {
        let cuts = cut_all(Format::Csv, 2, text, step).expect("no row is long");
        assert_eq!(
            bodies(&cuts),
            ["a,b\n1,\"x\ny\"\n2,\"say \"\"hi\"\"\n\"\n", "a,b\n3,5\" pipe\n4,z"],
            "in steps of {step}"
        );
        assert_eq!(cuts.iter().map(|cut| cut.rows).collect::<Vec<_>>(), [2, 2]);
    }
}

#[test]
fn a_line_of_a_body_is_found_in_the_file() {
    let cuts = cut_all(Format::Csv, 1, "a,b\n1,\"x\ny\"\n2,z\n3,w\n", 5).expect("no row is long");
    // The header is line 1, the first row is lines 2 and 3.
    assert_eq!(cuts.iter().map(Cut::first_line).collect::<Vec<_>>(), [2, 4, 5]);
    assert_eq!((cuts[0].input_line(1), cuts[0].input_line(3), cuts[2].input_line(2)), (1, 3, 5));
    let cuts = cut_all(Format::Ndjson, 2, "{}\n\n{}\n{}\n", 100).expect("no row is long");
    assert_eq!(cuts.iter().map(Cut::first_line).collect::<Vec<_>>(), [1, 4]);
    assert_eq!(cuts[1].input_line(1), 4);
}

#[test]
fn a_row_that_never_ends_is_refused_with_its_line() {
    let long = format!("a,b\n1,2\n\"{}", "x\n".repeat(100));
    assert_eq!(cut_all(Format::Csv, 10, &long, 10), Err(CutError::LongRow { line: 3, limit: 64 }));
    assert_eq!(cut_all(Format::Csv, 10, "", 10), Err(CutError::NoHeader));
    assert_eq!(cut_all(Format::Csv, 10, "a,b", 10), Ok(vec![]));
    assert_eq!(cut_all(Format::Ndjson, 10, "", 10), Ok(vec![]));
}

#[test]
fn a_body_is_full_when_its_bytes_are() {
    let mut cutter = Cutter::new(Format::Ndjson, Limits { rows: 100, bytes: 8, row_bytes: 64 });
    let cuts = cutter.push(b"{\"a\":1}\n{\"a\":2}\n{\"a\"").expect("no row is long");
    assert_eq!(bodies(&cuts), ["{\"a\":1}\n", "{\"a\":2}\n"]);
}

proptest! {
    #[test]
    fn cuts_do_not_depend_on_how_the_bytes_arrive(
        text in "([a-c,\"\n\r]|\"\"){0,120}", rows in 1_usize..4, step in 1_usize..9,
    ) {
        let text = format!("h,i\n{text}");
        prop_assert_eq!(cut_all(Format::Csv, rows, &text, step), cut_all(Format::Csv, rows, &text, 1000));
    }

    #[test]
    fn a_csv_reader_finds_the_same_rows_in_the_bodies_as_in_the_file(
        fields in prop::collection::vec("[a-c,\"\n ]{0,4}", 0..40), rows in 1_usize..4, step in 1_usize..9,
    ) {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(["h", "i"]).unwrap();
        for pair in fields.chunks_exact(2) {
            writer.write_record(pair).unwrap();
        }
        let text = String::from_utf8(writer.into_inner().unwrap()).unwrap();
        let read = |text: &str| -> Vec<csv::StringRecord> {
            csv::Reader::from_reader(text.as_bytes()).records().map(Result::unwrap).collect()
        };
        let cuts = cut_all(Format::Csv, rows, &text, step).unwrap();
        let found: Vec<_> = bodies(&cuts).into_iter().flat_map(read).collect();
        prop_assert_eq!(found, read(&text));
    }
}
