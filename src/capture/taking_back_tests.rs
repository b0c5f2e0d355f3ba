use super::*;
use crate::capture::cell::Cell;
use crate::capture::layout::Layout;
use crate::capture::meaning::Declared;
use crate::capture::tiling::{Outgoing, Tiling};
use crate::capture::weighing::Weighing;
use crate::model::applied::Applied;
use crate::model::schema::TableConfig;
use chrono_tz::Tz;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn table() -> Arc<Table> {
    let text =
        "name = 'orders'\nkey = ['id']\npartition_by = 'id'\ntime = 'at'\ncolumns = { id = 'int', at = 'timestamp' }";
    Arc::new(Table::new(&toml::from_str::<TableConfig>(text).expect("a table")).expect("it is consistent"))
}

fn stream(name: &str) -> SourceId {
    SourceId::Stream { name: name.into(), incarnation: 1 }
}

/// Snapshot batches of one partition: spans cut at `cuts`, a row with id `position` at each position that is in `rows`.
fn batches(cuts: &[u128]) -> Vec<Batch> {
    let declared = [("id", "bigint"), ("at", "datetime")].map(|(name, sql_type)| Declared {
        name: name.into(),
        sql_type: sql_type.into(),
        charset: None,
    });
    let layout = Layout::new(&table(), "shop.orders", declared.to_vec()).expect("it fits");
    let mut weighing = Weighing::new(table(), 1, Tz::UTC);
    let mut tiling = Tiling::new(vec![(stream("a"), table())], 1, FIRST.to, 0);
    let (mut made, mut position) = (Vec::new(), FIRST.to);
    for cut in cuts {
        for _ in 0..*cut {
            position = position.plus(1);
            weighing.push(&layout, &[Cell::Int(position.0 as i64), Cell::Null], 1, position).expect("it fits");
        }
        let cut = tiling.cut(0, position, 0, vec![weighing.cut()], true);
        made.extend(cut.into_iter().map(|Outgoing { batch, .. }| batch));
    }
    made
}

/// What a reader of mq has counted: by id, the sum of weights.
fn counted(mq: &[Batch]) -> (BTreeMap<i64, i64>, Applied) {
    let (mut applied, mut sums) = (Applied::default(), BTreeMap::new());
    for batch in mq {
        let header = &batch.header;
        let new = match applied.admit(&header.source, header.span) {
            Admission::None => Vec::new(),
            Admission::All => vec![header.span],
            Admission::Some(spans) => spans,
        };
        applied.add(&header.source, header.span, 0);
        if header.rows == 0 {
            continue;
        }
        let rows = decode_rows(&body_schema(&table(), true, true), &batch.body).expect("whole rows");
        let ints = |column: usize| rows.column(column).as_primitive::<Int64Type>().values().to_vec();
        let positions = rows.column(3).as_primitive::<Decimal128Type>().values().to_vec();
        for ((id, weight), position) in ints(0).into_iter().zip(ints(2)).zip(positions) {
            if new.iter().any(|span| span.contains(Position(position as u128))) {
                *sums.entry(id).or_insert(0) += weight;
            }
        }
    }
    sums.retain(|_, sum| *sum != 0);
    (sums, applied)
}

fn taking_back() -> TakingBack {
    TakingBack::new(table(), stream("a"), stream("b"), Position::ZERO)
}

fn take_back(mq: &mut Vec<Batch>) {
    mq.push(taking_back().empty(FIRST, true, 0));
    mq.push(taking_back().empty(WHOLE, false, 0));
    let mut back = taking_back();
    let taken: Vec<Batch> = mq.iter().flat_map(|batch| back.read(batch).expect("whole rows")).collect();
    assert!(back.is_closed());
    mq.extend(taken);
}

proptest! {
    #[test]
    fn nothing_of_an_interrupted_snapshot_stays_however_it_came(
        cuts in prop::collection::vec(0u128..4, 1..8),
        order in prop::collection::vec(0usize..8, 0..12),
        late in prop::collection::vec(0usize..8, 0..5),
        crashes in 0usize..3,
    ) {
        let made = batches(&cuts);
        let pick = |order: &[usize]| order.iter().filter_map(|index| made.get(*index).cloned()).collect::<Vec<_>>();
        // Some of it landed, in any order, some of it twice; some lands after it is ended.
        let mut mq = vec![taking_back().empty(FIRST, false, 0)];
        mq.extend(pick(&order));
        for _ in 0..crashes {
            take_back(&mut mq);
            mq.extend(pick(&late));
        }
        take_back(&mut mq);
        mq.extend(pick(&late));
        prop_assert!(!counted(&mq).1.is_gapless(), "until it is done it shows");
        mq.push(taking_back().empty(WHOLE, true, 0));
        take_back(&mut mq);
        let (sums, applied) = counted(&mq);
        prop_assert_eq!(sums, BTreeMap::new());
        prop_assert!(applied.is_gapless());
    }
}

#[test]
fn a_snapshot_shows_as_a_gap_until_its_last_batch() {
    let mut mq = vec![taking_back().empty(FIRST, false, 0)];
    mq.extend(batches(&[2, 3]));
    assert!(!counted(&mq).1.is_gapless());
    mq.push(taking_back().empty(LAST, false, 0));
    let (sums, applied) = counted(&mq);
    assert!(applied.is_gapless());
    assert_eq!(sums, (3..8).map(|id| (id, 1)).collect());
}

#[test]
fn what_lies_up_to_the_position_stays() {
    // Rows at 3, 4 | 5, 6, 7 | 8.
    let made = batches(&[2, 3, 1]);
    let from = Position(5);
    let mut mq = vec![taking_back().empty(Span::new(Position::ZERO, FIRST.to), false, 0)];
    mq.extend(made[..2].iter().cloned());
    mq.push(taking_back().empty(FIRST, true, 0));
    mq.push(taking_back().empty(beyond(from), false, 0));
    mq.push(made[2].clone());
    let mut back = TakingBack::new(table(), stream("a"), stream("b"), from);
    // It is read from where nothing beyond the position came before.
    let taken: Vec<Batch> = mq[2..].iter().flat_map(|batch| back.read(batch).expect("whole rows")).collect();
    mq.extend(taken);
    mq.push(taking_back().empty(WHOLE, true, 0));
    let (sums, applied) = counted(&mq);
    assert_eq!(sums, [(3, 1), (4, 1), (5, 1)].into());
    assert!(back.is_closed() && applied.is_gapless());
}
