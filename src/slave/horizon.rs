//! Up to when a partition's state is whole: what each feed says, and the oldest of it. Pure.
//!
//! Invariant: a feed that has said nothing holds all back; one feed never speaks for another (design I1).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::catalog::Catalog;
use crate::model::id::SourceId;

/// Unix milliseconds for each feed, 0 before it was heard of: the gates for all pushed rows, and a stream for each captured table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Horizon {
    /// `None`: all tables are captured.
    pushed_ms: Option<i64>,
    captured_ms: BTreeMap<Arc<str>, i64>,
}

impl Horizon {
    pub fn new(catalog: &Catalog) -> Self {
        let streams = catalog.tables().iter().map(|table| catalog.stream(&table.name));
        let pushed_ms = streams.clone().any(|stream| stream.is_none()).then_some(0);
        Self { pushed_ms, captured_ms: streams.flatten().map(|stream| (stream.clone(), 0)).collect() }
    }

    /// Takes what an earlier owner knew; a feed that is new has said nothing, and one that is gone holds nothing back.
    pub fn resume(&mut self, found: &Self) {
        if let (Some(ours), Some(theirs)) = (&mut self.pushed_ms, found.pushed_ms) {
            *ours = theirs.max(*ours);
        }
        for (stream, ours) in &mut self.captured_ms {
            *ours = found.captured_ms.get(stream).copied().unwrap_or(0).max(*ours);
        }
    }

    /// Everything that `source` had before `at_ms` is counted.
    pub fn counted(&mut self, source: &SourceId, at_ms: i64) {
        if source.is_pushed() {
            return self.pushed(at_ms);
        }
        // What takes back, or was captured once, says nothing of the others.
        if let SourceId::Stream { name, .. } = source
            && let Some(known_ms) = self.captured_ms.get_mut(name)
        {
            *known_ms = at_ms.max(*known_ms);
        }
    }

    /// Everything that gates took before `at_ms` is counted.
    pub fn pushed(&mut self, at_ms: i64) {
        if let Some(known_ms) = &mut self.pushed_ms {
            *known_ms = at_ms.max(*known_ms);
        }
    }

    /// Every change that the sources had before is counted, but for gaps, Unix milliseconds; 0: not known.
    pub fn as_of_ms(&self) -> i64 {
        self.pushed_ms.iter().chain(self.captured_ms.values()).copied().min().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::schema::TableConfig;
    use crate::model::window::Calendar;

    fn catalog(captured: &[&str]) -> Catalog {
        let table = |name: &&str| {
            let columns = "columns = { id = 'int', at = 'timestamp' }";
            let text = format!("name = '{name}'\nkey = ['id']\npartition_by = 'id'\ntime = 'at'\n{columns}");
            toml::from_str::<TableConfig>(&text).expect("a table")
        };
        let tables: Vec<_> = ["orders", "refunds"].iter().map(table).collect();
        let mut catalog = Catalog::new(&tables, &[], Calendar::utc()).expect("they are consistent");
        captured.iter().for_each(|table| catalog.capture((*table).into(), format!("shop/{table}").into()));
        catalog
    }

    fn stream(name: &str, incarnation: u64) -> SourceId {
        SourceId::Stream { name: name.into(), incarnation }
    }

    #[test]
    fn i1_no_feed_speaks_for_another() {
        let mut horizon = Horizon::new(&catalog(&["orders"]));
        horizon.pushed(1_000);
        assert_eq!(horizon.as_of_ms(), 0, "nothing was heard of the captured table");
        horizon.counted(&stream("shop/orders", 1), 400);
        assert_eq!(horizon.as_of_ms(), 400, "the gates may be idle, the capture is behind");
        horizon.counted(&stream("shop/orders", 2), 1_500);
        assert_eq!(horizon.as_of_ms(), 1_000);
        horizon.counted(&SourceId::push("refunds", 3), 1_200);
        horizon.counted(&stream("shop/orders/taken-back", 1), 9_000);
        horizon.counted(&stream("old/orders", 1), 9_000);
        assert_eq!(horizon.as_of_ms(), 1_200);
        horizon.counted(&stream("shop/orders", 2), 1_100);
        assert_eq!(horizon.as_of_ms(), 1_200, "and none goes back");
    }

    #[test]
    fn without_pushed_tables_idle_gates_hold_nothing_back() {
        let mut horizon = Horizon::new(&catalog(&["orders", "refunds"]));
        horizon.counted(&stream("shop/orders", 1), 700);
        horizon.counted(&stream("shop/refunds", 1), 600);
        horizon.pushed(100);
        assert_eq!(horizon.as_of_ms(), 600);
    }

    #[test]
    fn a_feed_that_is_new_is_waited_for_and_one_that_is_gone_is_not() {
        let mut before = Horizon::new(&catalog(&["refunds"]));
        before.pushed(500);
        before.counted(&stream("shop/refunds", 1), 300);
        let mut after = Horizon::new(&catalog(&["orders"]));
        after.resume(&before);
        assert_eq!(after.as_of_ms(), 0);
        after.counted(&stream("shop/orders", 1), 800);
        assert_eq!(after.as_of_ms(), 500);
    }
}
