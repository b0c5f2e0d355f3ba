//! Many CSV lines at once: those without quotes and of the right number of fields, which are nearly all.
//!
//! Delimiters of such lines form a matrix, so that a column can be read from top to bottom. Invariant: lines that are
//! anything else end the stretch; whoever reads row by row decides about them.

/// How many lines are found at once: their bytes and ends stay in the processor's nearest caches.
const LINES_MOST: usize = 1_024;

const ONES: u64 = u64::from_le_bytes([0x01; 8]);
const LOWS: u64 = u64::from_le_bytes([0x7f; 8]);

/// Lines with their line ends.
#[derive(Debug, Clone, Copy)]
pub struct Lines<'a> {
    bytes: &'a [u8],
    /// Where each field of each line ends, line after line.
    ends: &'a [u32],
    fields: usize,
}

/// One field of all lines.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    lines: Lines<'a>,
    index: usize,
}

/// Room for the ends of fields, kept between stretches.
#[derive(Debug, Default)]
pub struct Finder {
    ends: Vec<u32>,
}

/// Marks the bytes of `word` that equal `byte` with their highest bit. Exact for all of them, unlike the shorter trick that
/// only finds the first (<https://graphics.stanford.edu/~seander/bithacks.html#ZeroInWord>).
#[inline]
fn equal(word: u64, byte: u8) -> u64 {
    let zero_where_equal = word ^ (ONES * u64::from(byte));
    !(((zero_where_equal & LOWS) + LOWS) | zero_where_equal | LOWS)
}

impl Finder {
    /// The longest stretch of plain lines at the start of `bytes`, none longer than `line_bytes`; may be empty.
    pub fn find<'a>(&'a mut self, bytes: &'a [u8], fields: usize, line_bytes: usize) -> Lines<'a> {
        self.ends.clear();
        let bytes = &bytes[..bytes.len().min(u32::MAX as usize)];
        let mut search = Search { bytes, fields, line_bytes, ends: &mut self.ends, left: fields, line_start: 0 };
        search.run();
        let (end, whole) = (search.line_start, self.ends.len() / fields * fields);
        Lines { bytes: &bytes[..end], ends: &self.ends[..whole], fields }
    }
}

struct Search<'a> {
    bytes: &'a [u8],
    fields: usize,
    line_bytes: usize,
    ends: &'a mut Vec<u32>,
    /// Fields still to come in the line.
    left: usize,
    line_start: usize,
}

impl Search<'_> {
    fn run(&mut self) {
        let mut words = self.bytes.chunks_exact(8);
        let mut at = 0;
        for word in words.by_ref() {
            let word = u64::from_le_bytes(word.try_into().expect("chunks of eight"));
            let mut marks = equal(word, b',') | equal(word, b'\n') | equal(word, b'"');
            while marks != 0 {
                if !self.mark(at + (marks.trailing_zeros() / 8) as usize) {
                    return;
                }
                marks &= marks - 1;
            }
            at += 8;
        }
        for (index, byte) in words.remainder().iter().enumerate() {
            if matches!(byte, b',' | b'\n' | b'"') && !self.mark(at + index) {
                return;
            }
        }
    }

    /// Takes the comma, line feed or quote at `at`. Does the stretch go on?
    #[inline]
    fn mark(&mut self, at: usize) -> bool {
        match (self.bytes[at], self.left) {
            (b',', 2..) => {
                self.ends.push(at as u32);
                self.left -= 1;
                true
            }
            (b'\n', 1) if at - self.line_start < self.line_bytes && !self.is_blank(at) => {
                self.ends.push(at as u32);
                self.left = self.fields;
                self.line_start = at + 1;
                self.ends.len() < LINES_MOST * self.fields
            }
            _ => false,
        }
    }

    /// Blank lines are skipped, not rows.
    fn is_blank(&self, end: usize) -> bool {
        matches!(&self.bytes[self.line_start..end], b"" | b"\r")
    }
}

impl<'a> Lines<'a> {
    pub fn len(&self) -> usize {
        self.ends.len() / self.fields
    }

    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub fn field(&self, index: usize) -> Field<'a> {
        Field { lines: *self, index }
    }
}

impl<'a> Field<'a> {
    pub fn lines(&self) -> usize {
        self.lines.len()
    }

    /// The field's text in each line.
    #[inline]
    pub fn cells(self) -> impl Iterator<Item = &'a [u8]> {
        let Lines { bytes, ends, fields } = self.lines;
        let is_last = self.index + 1 == fields;
        (self.index..ends.len()).step_by(fields).map(move |at| {
            let from = if at == 0 { 0 } else { ends[at - 1] as usize + 1 };
            let cell = &bytes[from..ends[at] as usize];
            match cell {
                [rest @ .., b'\r'] if is_last => rest,
                _ => cell,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cells(text: &str, fields: usize) -> (Vec<Vec<String>>, usize) {
        let mut finder = Finder::default();
        let lines = finder.find(text.as_bytes(), fields, 20);
        let texts = |field: Field<'_>| field.cells().map(|cell| String::from_utf8_lossy(cell).into_owned()).collect();
        ((0..fields).map(|index| texts(lines.field(index))).collect(), lines.bytes().len())
    }

    #[test]
    fn a_stretch_ends_before_the_first_line_that_is_not_plain() {
        let columns = |rows: [&str; 2]| rows.map(|row| row.split(' ').map(str::to_owned).collect::<Vec<_>>()).to_vec();
        assert_eq!(cells("1,a\n2,b\r\n", 2), (columns(["1 2", "a b"]), 9));
        for odd in ["3\n4,d\n", "3,c,x\n", "\n", "\r\n", "3,\"c\"\n", "3,c", "", "3,cccccccccccccccccccc\n"] {
            assert_eq!(cells(&format!("1,a\n2,b\n{odd}"), 2), (columns(["1 2", "a b"]), 8), "{odd:?}");
        }
        assert_eq!(cells("\n\n", 1), (vec![vec![]], 0));
        assert_eq!(cells(",\n,\n", 2), (vec![vec![String::new(); 2]; 2], 4));
    }

    proptest! {
        #[test]
        fn all_bytes_that_equal_are_marked_and_no_others(bytes: [u8; 8], byte: u8) {
            let expected: [u8; 8] = bytes.map(|found| if found == byte { 0x80 } else { 0 });
            prop_assert_eq!(equal(u64::from_le_bytes(bytes), byte), u64::from_le_bytes(expected));
        }

        #[test]
        fn plain_lines_are_read_as_they_stand(rows in prop::collection::vec(("[a-z]{1,9}", "[a-z]{0,9}", "[a-z]{0,9}"), 0..30)) {
            let text: String = rows.iter().map(|(a, b, c)| format!("{a},{b},{c}\n")).collect();
            let mut finder = Finder::default();
            let lines = finder.find(text.as_bytes(), 3, 100);
            prop_assert_eq!((lines.len(), lines.bytes().len()), (rows.len(), text.len()));
            for (index, expected) in [rows.iter().map(|row| &row.0).collect::<Vec<_>>(), rows.iter().map(|row| &row.1).collect(), rows.iter().map(|row| &row.2).collect()].into_iter().enumerate() {
                let found: Vec<_> = lines.field(index).cells().collect();
                prop_assert_eq!(found, expected.iter().map(|text| text.as_bytes()).collect::<Vec<_>>());
            }
        }
    }
}
