//! Dense numbers for codes: which values are the same.
//!
//! Invariant: a code has one number, codes have different ones; numbers are in the order of first appearance.

use hashbrown::HashTable;

/// Numbers for codes.
#[derive(Debug)]
pub struct Numbers {
    table: HashTable<u32>,
    codes: Vec<i128>,
    /// The number that stands for null, once one was met; its code is not a value's.
    null: Option<u32>,
    /// Codes asked for lately, each where its bits put it: most rows need no more than one comparison.
    recent: Box<[Recent; 1 << RECENT_BITS]>,
}

#[derive(Debug, Clone, Copy)]
struct Recent {
    code: i128,
    number: u32,
}

const RECENT_BITS: u32 = 6;

impl Default for Numbers {
    fn default() -> Self {
        // An empty entry has a code whose place is another, so that nobody finds it there.
        let mut recent = Box::new([Recent { code: 0, number: 0 }; 1 << RECENT_BITS]);
        let (at, elsewhere) = (place(0), 1);
        assert!(place(elsewhere) != at, "two codes at two places");
        recent[at].code = elsewhere;
        Self { table: HashTable::new(), codes: Vec::new(), null: None, recent }
    }
}

impl Numbers {
    #[inline(always)]
    pub fn of(&mut self, code: i128) -> u32 {
        let recent = &self.recent[place(code)];
        if recent.code == code { recent.number } else { self.look_up(code) }
    }

    #[inline(never)]
    fn look_up(&mut self, code: i128) -> u32 {
        let codes = &self.codes;
        let known = self.table.find(mix(code), |number| codes[*number as usize] == code).copied();
        let number = known.unwrap_or_else(|| self.add(code));
        self.recent[place(code)] = Recent { code, number };
        number
    }

    #[cold]
    fn add(&mut self, code: i128) -> u32 {
        let number = u32::try_from(self.codes.len()).expect("a query reads fewer than 2^32 rows");
        self.codes.push(code);
        let codes = &self.codes;
        self.table.insert_unique(mix(code), number, |number| mix(codes[*number as usize]));
        number
    }

    pub fn len(&self) -> usize {
        self.codes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.codes.is_empty()
    }
}

/// Which recent entry a code may have (Fibonacci hashing, Knuth).
#[inline]
fn place(code: i128) -> usize {
    let folded = code as u64 ^ ((code >> 64) as u64).rotate_left(32);
    (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - RECENT_BITS)) as usize
}

/// A folded multiplication (as in wyhash): all bits of the code reach all bits of the hash.
fn mix(code: i128) -> u64 {
    let (low, high) = (code as u64 ^ 0x2d35_8dcc_aa6c_78a5, (code >> 64) as u64 ^ 0x8bb8_4b93_962e_acc9);
    let product = u128::from(low) * u128::from(high);
    product as u64 ^ (product >> 64) as u64
}

impl Numbers {
    /// The number that stands for null.
    pub fn of_null(&mut self) -> u32 {
        *self.null.get_or_insert_with(|| {
            self.codes.push(0);
            u32::try_from(self.codes.len() - 1).expect("a query reads fewer than 2^32 rows")
        })
    }

    /// What has this number; `None`: null.
    #[inline]
    pub fn code(&self, number: u32) -> Option<i128> {
        (Some(number) != self.null).then(|| self.codes[number as usize])
    }
}
