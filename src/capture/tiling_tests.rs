use super::*;
use crate::model::applied::Applied;
use crate::model::schema::TableConfig;
use arrow::array::RecordBatch;
use proptest::prelude::*;

fn table() -> Arc<Table> {
    let text =
        "name = 'orders'\nkey = ['id']\npartition_by = 'id'\ntime = 'at'\ncolumns = { id = 'int', at = 'timestamp' }";
    Arc::new(Table::new(&toml::from_str::<TableConfig>(text).expect("a table")).expect("it is consistent"))
}

fn source() -> SourceId {
    SourceId::Stream { name: "db/shop.orders".into(), incarnation: 1 }
}

fn tiling(heartbeat_ms: i64) -> Tiling {
    Tiling::new(vec![(source(), table())], 3, Position(10), heartbeat_ms)
}

fn part(partition: u16) -> Part {
    let schema = crate::model::rows::body_schema(&table(), true, true);
    Part { partition: PartitionId(partition), rows: RecordBatch::new_empty(schema), hours: None }
}

proptest! {
    #[test]
    fn spans_tile_every_partition(cuts in prop::collection::vec((0i64..30, 0u128..3, prop::collection::btree_set(0u16..3, 0..3)), 0..40)) {
        let (mut tiling, mut now_ms, mut to) = (tiling(50), 0, 10);
        let mut applied = vec![Applied::default(); 3];
        applied.iter_mut().for_each(|applied| applied.add(&source(), Span::new(Position(0), Position(10)), 0));
        for (step, further, partitions) in cuts {
            (now_ms, to) = (now_ms + step, to + further);
            // Rows lie beyond what was cut.
            let parts = if further > 0 { partitions.into_iter().map(part).collect() } else { Vec::new() };
            for Outgoing { partition, batch, .. } in tiling.cut(now_ms, Position(to), now_ms, vec![parts], false) {
                applied[usize::from(partition.0)].add(&batch.header.source, batch.header.span, 0);
                prop_assert_eq!(batch.header.span.to, Position(to));
            }
            prop_assert!(applied.iter().all(Applied::is_gapless));
        }
        for Outgoing { partition, batch, .. } in tiling.cut(now_ms, Position(to), now_ms, vec![Vec::new()], true) {
            applied[usize::from(partition.0)].add(&batch.header.source, batch.header.span, 0);
        }
        let high = |applied: &Applied| applied.get(&source()).map(|progress| progress.high());
        prop_assert!(applied.iter().all(|applied| high(applied) == Some(Position(to))));
    }
}

#[test]
fn partitions_without_rows_hear_of_it_now_and_then() {
    let mut tiling = tiling(50);
    let mut count = |now_ms, to| tiling.cut(now_ms, Position(to), now_ms, vec![vec![]], false).len();
    assert_eq!((count(0, 11), count(10, 12), count(49, 13), count(50, 14), count(100, 14)), (3, 0, 0, 3, 0));
}
