use super::*;

fn literal(kind: Kind, values: &dyn Array, row: usize) -> (String, bool) {
    let mut out = Vec::new();
    let is_exact = kind.write(&mut out, values, row);
    (String::from_utf8(out).unwrap(), is_exact)
}

fn decimals(precision: u8, scale: i8, values: &[i128]) -> Decimal128Array {
    Decimal128Array::from(values.to_vec()).with_precision_and_scale(precision, scale).unwrap()
}

#[test]
fn decimals_are_written_with_their_point_and_read_back() {
    let values = decimals(38, 2, &[0, 5, -5, 100, -12_345, i128::MAX]);
    let kind = Kind::of(values.data_type()).unwrap();
    assert_eq!(kind.sql(), "decimal(38,2)");
    for (row, text) in ["0.00", "0.05", "-0.05", "1.00", "-123.45"].into_iter().enumerate() {
        assert_eq!(literal(kind, &values, row), (text.into(), true));
        assert_eq!(kind.read(Value::Bytes(text.into())), Ok(kind.cell(&values, row)));
    }
    assert_eq!(literal(kind, &values, 5), ("null".into(), false), "a digit more than the column has");
    let whole = decimals(12, 0, &[-7]);
    assert_eq!(literal(Kind::Decimal(12, 0), &whole, 0), ("-7".into(), true));
}

#[test]
fn decimals_finer_than_the_server_knows_are_cut_and_say_so() {
    let value = 123 * 10_i128.pow(32) + 1;
    let values = decimals(38, 34, &[value, 10_i128.pow(4)]);
    let kind = Kind::Decimal(38, 34);
    assert_eq!(kind.sql(), "decimal(34,30)");
    assert_eq!(literal(kind, &values, 0), ("1.230000000000000000000000000000".into(), false));
    assert_eq!(literal(kind, &values, 1), ("0.000000000000000000000000000001".into(), true));
    assert_eq!(kind.read(Value::Bytes(b"0.000000000000000000000000000001".to_vec())), Ok(Cell::Decimal(10_000)));
    assert_eq!(Kind::Decimal(38, 38).sql(), "decimal(30,30)");
}

#[test]
fn no_text_ends_its_own_quotes() {
    let long = "ä".repeat(300);
    let values = StringArray::from(vec![Some("it's \\ \0 \"x\"\n"), Some(&long), Some(&long[..510]), None]);
    assert_eq!(literal(Kind::Text, &values, 0), ("'it''s \\\\ \\0 \"x\"\n'".into(), true));
    assert_eq!(literal(Kind::Text, &values, 1), (format!("'{}'", "ä".repeat(255)), false));
    assert_eq!(literal(Kind::Text, &values, 2), (format!("'{}'", "ä".repeat(255)), true));
    assert_eq!(literal(Kind::Text, &values, 3), ("null".into(), true));
    let mut out = Vec::new();
    write_bytes(&mut out, &[0, 0x1f, 0xff]);
    assert_eq!(out, b"x'001fff'");
}

#[test]
fn times_are_written_in_the_years_that_the_server_holds() {
    let values = TimestampMicrosecondArray::from(vec![0, 1_763_807_584_120_001, -1, -62_135_596_800_000_000, i64::MAX]);
    for (row, text) in ["'1970-01-01 00:00:00.000000'", "'2025-11-22 10:33:04.120001'", "'1969-12-31 23:59:59.999999'"]
        .into_iter()
        .enumerate()
    {
        assert_eq!(literal(Kind::Timestamp, &values, row), (text.into(), true));
    }
    for row in [3, 4] {
        assert_eq!(literal(Kind::Timestamp, &values, row), ("null".into(), false));
    }
    assert_eq!(
        Kind::Timestamp.read(Value::Date(2025, 11, 22, 10, 33, 4, 120_001)),
        Ok(Cell::Timestamp(1_763_807_584_120_001))
    );
    assert!(Kind::Timestamp.read(Value::Date(0, 0, 0, 0, 0, 0, 0)).is_err());
    let days = Date32Array::from(vec![0, 20_414, i32::MAX]);
    assert_eq!(literal(Kind::Date, &days, 1), ("'2025-11-22'".into(), true));
    assert_eq!(literal(Kind::Date, &days, 2), ("null".into(), false));
    assert_eq!(Kind::Date.read(Value::Date(2025, 11, 22, 0, 0, 0, 0)), Ok(Cell::Date(20_414)));
}

#[test]
fn doubles_are_exact_but_for_those_that_sql_does_not_have() {
    let values = Float64Array::from(vec![0.1, -2.5e-300, f64::NAN, f64::INFINITY, -0.0, 0.0]);
    let shown: Vec<_> = (0..values.len()).map(|row| literal(Kind::Double, &values, row)).collect();
    let expected =
        [("1e-1", true), ("-2.5e-300", true), ("null", false), ("null", false), ("-0e0", false), ("0e0", true)];
    assert_eq!(shown, expected.map(|(text, is_exact)| (text.to_owned(), is_exact)));
}

#[test]
fn cells_make_the_columns_that_they_came_from() {
    let columns: [ArrayRef; 7] = [
        Arc::new(Int64Array::from(vec![Some(-1), None])),
        Arc::new(Float64Array::from(vec![None, Some(0.5)])),
        Arc::new(decimals(20, 3, &[5, -5])),
        Arc::new(StringArray::from(vec![Some("a"), None])),
        Arc::new(BooleanArray::from(vec![Some(true), None])),
        Arc::new(TimestampMicrosecondArray::from(vec![Some(7), None])),
        Arc::new(Date32Array::from(vec![None, Some(9)])),
    ];
    for column in columns {
        let kind = Kind::of(column.data_type()).unwrap();
        let cells: Vec<Cell> = (0..2).map(|row| kind.cell(&column, row)).collect();
        assert_eq!(&kind.column(cells.iter()), &column);
    }
    assert_eq!(Kind::of(&DataType::Binary), None);
}
