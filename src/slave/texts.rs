//! Codes of byte strings: up to seven bytes are their own code, longer ones are numbered. Pure.
//!
//! Invariant: two strings have one code exactly when they are equal. A numbered string is kept as long as a group
//! refers to it.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

/// Above the bytes of a code stands its length, or this for a number.
const NUMBERED: u64 = 0xff;
const SHORT: usize = 7;

/// The code of `bytes[start..end]` if it is short. Reads whole words where there is room.
#[inline]
pub fn short_code(bytes: &[u8], start: usize, end: usize) -> Option<u64> {
    let len = end - start;
    if len > SHORT {
        return None;
    }
    let word = match bytes.get(start..start + 8) {
        Some(word) => u64::from_le_bytes(word.try_into().expect("eight bytes")) & ((1 << (8 * len)) - 1),
        None => bytes[start..end].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    };
    Some(word | (len as u64) << 56)
}

/// Byte strings too long to be their own code.
#[derive(Debug, Default)]
pub struct Texts {
    strings: Vec<Option<Box<[u8]>>>,
    references: Vec<u32>,
    free: Vec<u32>,
    numbers: HashTable<u32>,
    held_bytes: usize,
}

fn number_of(code: u64) -> Option<usize> {
    (code >> 56 == NUMBERED).then_some((code & 0xffff_ffff) as usize)
}

impl Texts {
    /// The code of `bytes`. A string numbered for the first time has no reference yet: `retain` its code.
    pub fn code(&mut self, bytes: &[u8]) -> u64 {
        if let Some(code) = short_code(bytes, 0, bytes.len()) {
            return code;
        }
        let hash = xxh3_64(bytes);
        let strings = &self.strings;
        let same = |number: &u32| strings[*number as usize].as_deref() == Some(bytes);
        let number = match self.numbers.find(hash, same) {
            Some(number) => *number,
            None => self.insert(hash, bytes),
        };
        NUMBERED << 56 | u64::from(number)
    }

    fn insert(&mut self, hash: u64, bytes: &[u8]) -> u32 {
        let number = self.free.pop().unwrap_or_else(|| {
            self.strings.push(None);
            self.references.push(0);
            self.strings.len() as u32 - 1
        });
        self.strings[number as usize] = Some(bytes.into());
        self.held_bytes += bytes.len();
        let strings = &self.strings;
        let hash_of = |other: &u32| xxh3_64(strings[*other as usize].as_deref().unwrap_or_default());
        self.numbers.insert_unique(hash, number, hash_of);
        number
    }

    /// Notes that a group uses the code; false if no such string is known.
    pub fn retain(&mut self, code: u64) -> bool {
        let Some(number) = number_of(code) else { return true };
        match self.references.get_mut(number) {
            Some(references) => {
                *references += 1;
                true
            }
            None => false,
        }
    }

    pub fn release(&mut self, code: u64) {
        let Some(number) = number_of(code) else { return };
        self.references[number] -= 1;
        if self.references[number] > 0 {
            return;
        }
        let string = self.strings[number].take().expect("a string with references is kept");
        let entry = self.numbers.find_entry(xxh3_64(&string), |other| *other as usize == number);
        entry.expect("a string that is kept is in the table").remove();
        self.held_bytes -= string.len();
        self.free.push(number as u32);
    }

    /// Gives `read` the bytes of a code.
    #[inline]
    pub fn with<R>(&self, code: u64, read: impl FnOnce(&[u8]) -> R) -> R {
        match number_of(code) {
            Some(number) => read(self.strings[number].as_deref().expect("a code in use has its string")),
            None => read(&code.to_le_bytes()[..(code >> 56) as usize]),
        }
    }

    pub fn snapshot(&self) -> Vec<Option<Vec<u8>>> {
        self.strings.iter().map(|string| string.as_ref().map(|bytes| bytes.to_vec())).collect()
    }

    /// The strings without references: `retain` the codes in use.
    pub fn restore(strings: Vec<Option<Vec<u8>>>) -> Self {
        let mut texts = Self { references: vec![0; strings.len()], ..Self::default() };
        texts.strings = strings.into_iter().map(|string| string.map(Vec::into_boxed_slice)).collect();
        for (number, string) in texts.strings.iter().enumerate() {
            let Some(string) = string else {
                texts.free.push(number as u32);
                continue;
            };
            texts.held_bytes += string.len();
            let strings = &texts.strings;
            let hash_of = |other: &u32| xxh3_64(strings[*other as usize].as_deref().unwrap_or_default());
            texts.numbers.insert_unique(xxh3_64(string), number as u32, hash_of);
        }
        texts
    }

    /// An estimate of the memory held.
    pub fn bytes(&self) -> usize {
        self.held_bytes + self.strings.capacity() * 20 + self.numbers.capacity() * 5
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_strings_are_their_own_code_wherever_they_stand() {
        let bytes = b"appweb-partner-x";
        let texts = Texts::default();
        for (start, end) in [(0, 0), (0, 3), (3, 6), (9, 16), (14, 16), (16, 16)] {
            let code = short_code(bytes, start, end).expect("short");
            assert_eq!(short_code(&bytes[start..end], 0, end - start), Some(code));
            texts.with(code, |found| assert_eq!(found, &bytes[start..end]));
        }
        assert_eq!(short_code(bytes, 0, 8), None);
        assert_ne!(short_code(b"\0", 0, 1), short_code(b"\0\0", 0, 2));
    }

    #[test]
    fn a_long_string_is_kept_as_long_as_it_is_referred_to() {
        let mut texts = Texts::default();
        let (a, b) = (texts.code(b"a long string"), texts.code(b"another string"));
        assert!(texts.retain(a) && texts.retain(b) && texts.retain(b));
        assert_eq!(texts.code(b"a long string"), a);
        texts.release(a);
        assert!(texts.code(b"a third string") == a, "the number is given away again");
        texts.with(b, |found| assert_eq!(found, b"another string"));
        let mut restored = Texts::restore(texts.snapshot());
        assert_eq!(restored.code(b"another string"), b);
        assert!(!restored.retain(NUMBERED << 56 | 9));
    }
}
