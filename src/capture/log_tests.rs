use std::sync::Arc;

use super::*;
use crate::capture::gtid::Gtids;
use crate::capture::layout::Layout;
use crate::capture::meaning::Declared;
use crate::capture::weighing::Weighing;
use crate::model::schema::{Table, TableConfig};
use arrow::array::AsArray;
use arrow::datatypes::{Decimal128Type, Int64Type};
use chrono_tz::Tz;
use proptest::prelude::*;

/// A log that is written event by event.
struct Server {
    place: Place,
}

impl Server {
    fn new() -> Self {
        Self { place: Place::new(3, 4) }
    }

    fn event<'a>(&mut self, kind: u8, body: &'a [u8]) -> Event<'a> {
        let size = 19 + body.len() as u32 + 4;
        self.place.offset += u64::from(size);
        Event { kind, timestamp: 1_000, server: 1, size, end: self.place.offset as u32, flags: 0, body }
    }
}

fn table() -> Arc<Table> {
    let text =
        "name = 'orders'\nkey = ['id']\npartition_by = 'id'\ntime = 'at'\ncolumns = { id = 'int', at = 'timestamp' }";
    Arc::new(Table::new(&toml::from_str::<TableConfig>(text).expect("a table")).expect("it is consistent"))
}

fn log() -> Log {
    let column =
        |(name, sql_type): (&str, &str)| Declared { name: name.into(), sql_type: sql_type.into(), charset: None };
    let declared = [("id", "int(11)"), ("at", "timestamp")].map(column).to_vec();
    let layout = Arc::new(Layout::new(&table(), "shop.orders", declared).expect("it fits"));
    let weighing = Weighing::new(table(), 4, Tz::UTC);
    let tables = vec![LogTable { database: "shop".into(), name: "orders".into(), layout, weighing }];
    let start = Start {
        log: LogName { prefix: "bin".into() },
        place: Place::new(3, 4),
        floor: Position::ZERO,
        passed: Position::ZERO,
        gtids: Some(Gtids::parse_maria("0-1-4").expect("a list")),
    };
    Log::new(start, tables)
}

fn map(id: u8, table: &str) -> Vec<u8> {
    let mut body = vec![id, 0, 0, 0, 0, 0, 1, 0];
    body.extend_from_slice(b"\x04shop\0");
    body.push(table.len() as u8);
    body.extend_from_slice(table.as_bytes());
    // int, timestamp(0).
    body.extend_from_slice(&[0, 2, 3, 17, 1, 0, 0]);
    body
}

fn row(id: i32) -> Vec<u8> {
    let mut bytes = vec![0xfc];
    bytes.extend_from_slice(&id.to_le_bytes());
    bytes.extend_from_slice(&[0, 0, 0, 9]);
    bytes
}

fn rows(id: u8, update: bool, rows: &[i32]) -> Vec<u8> {
    let mut body = vec![id, 0, 0, 0, 0, 0, 1, 0, 2, 0, 2, 0xff];
    body.extend(update.then_some(0xff));
    body.extend(rows.iter().flat_map(|id| row(*id)));
    body
}

fn query(text: &str) -> Vec<u8> {
    let mut body = vec![0; 8];
    body.extend_from_slice(&[4, 0, 0, 0, 0]);
    body.extend_from_slice(b"shop\0");
    body.extend_from_slice(text.as_bytes());
    body
}

/// What was weighed: position, id, weight; in order of positions.
fn weighed(log: &mut Log) -> Vec<(Position, i64, i64)> {
    let mut all = Vec::new();
    for part in log.cut().remove(0) {
        let int = |column: usize| part.rows.column(column).as_primitive::<Int64Type>().values().to_vec();
        let positions = part.rows.column(3).as_primitive::<Decimal128Type>().values().to_vec();
        let rows = positions.into_iter().zip(int(0)).zip(int(2));
        all.extend(rows.map(|((position, id), weight)| (Position(position as u128), id, weight)));
    }
    all.sort_unstable();
    all
}

fn ids(weighed: &[(Position, i64, i64)]) -> Vec<(i64, i64)> {
    weighed.iter().map(|(_, id, weight)| (*id, *weight)).collect()
}

#[test]
fn inserts_updates_and_deletes_become_weighted_rows_in_order() {
    let (mut log, mut server) = (log(), Server::new());
    let mut read = |kind: u8, body: &[u8]| log.read(&server.event(kind, body)).expect("it is read");
    read(kind::FORMAT_DESCRIPTION, &[4, 0]);
    read(kind::ANONYMOUS_GTID, &[]);
    read(kind::QUERY, &query("BEGIN"));
    read(kind::TABLE_MAP, &map(1, "orders"));
    read(kind::WRITE_ROWS, &rows(1, false, &[1, 2]));
    read(kind::UPDATE_ROWS, &rows(1, true, &[1, 3]));
    read(kind::DELETE_ROWS, &rows(1, false, &[2]));
    read(kind::TABLE_MAP, &map(2, "buyers"));
    read(kind::WRITE_ROWS, &rows(2, false, &[9]));
    read(kind::XID, &[0; 8]);
    assert_eq!((log.take_changes(), log.rows(), log.position()), (4, 5, server.place.position()));
    let weighed = weighed(&mut log);
    assert_eq!(ids(&weighed), [(1, 1), (2, 1), (1, -1), (3, 1), (2, -1)]);
    assert_eq!(log.resume(), server.place);
}

#[test]
fn where_nothing_comes_the_position_goes_on_with_the_time_and_before_the_rows_that_come_then() {
    let (mut log, mut server) = (log(), Server::new());
    log.read(&server.event(kind::QUERY, &query("analyze table other"))).expect("it is read");
    let end = server.place;
    log.quiet(Place::new(3, 4), 9_000);
    assert_eq!(log.position(), end.position(), "it has gone on since");
    log.quiet(end, 7_000);
    log.quiet(end, 6_000);
    assert_eq!(log.position(), end.quiet(7_000));
    log.begin_again();
    log.read(&server.event(kind::MARIA_GTID, &[0; 19])).expect("it is read");
    log.quiet(server.place, 8_000);
    assert_eq!(log.position(), server.place.position(), "not within a transaction");
    log.read(&server.event(kind::TABLE_MAP, &map(1, "orders"))).expect("it is read");
    log.read(&server.event(kind::WRITE_ROWS, &rows(1, false, &[1]))).expect("it is read");
    assert_eq!(ids(&weighed(&mut log)), [(1, 1)]);
}

#[test]
fn after_a_lost_connection_no_row_is_weighed_twice() {
    let (mut log, mut server) = (log(), Server::new());
    let bodies = [
        (kind::MARIA_GTID, vec![0; 13]),
        (kind::TABLE_MAP, map(1, "orders")),
        (kind::WRITE_ROWS_V1, rows(1, false, &[1, 2])),
        (kind::WRITE_ROWS_V1, rows(1, false, &[3])),
        (kind::XID, vec![0; 8]),
    ];
    // Of the first version: no extra data.
    let bodies = bodies.map(|(kind, mut body)| {
        if kind == kind::WRITE_ROWS_V1 {
            body.drain(8..10);
        }
        (kind, body)
    });
    let begin = server.place;
    for (kind, body) in &bodies[..3] {
        log.read(&server.event(*kind, body)).expect("it is read");
    }
    assert_eq!((log.resume(), log.position()), (begin, server.place.position()), "within a transaction");
    log.begin_again();
    assert_eq!(log.position(), server.place.position());
    let mut server = Server::new();
    let mut rotate = 4u64.to_le_bytes().to_vec();
    rotate.extend_from_slice(b"bin.0000031234");
    log.read(&Event {
        kind: kind::ROTATE,
        timestamp: 0,
        server: 1,
        size: 40,
        end: 0,
        flags: ARTIFICIAL,
        body: &rotate,
    })
    .expect("our place");
    for (kind, body) in &bodies {
        log.read(&server.event(*kind, body)).expect("it is read");
    }
    assert_eq!(ids(&weighed(&mut log)), [(1, 1), (2, 1), (3, 1)]);
    assert_eq!(log.resume(), server.place);
}

#[test]
fn no_event_can_be_missing_unnoticed() {
    let bodies = [
        (kind::FORMAT_DESCRIPTION, vec![4, 0]),
        (kind::MARIA_GTID, vec![0; 13]),
        (kind::TABLE_MAP, map(1, "orders")),
        (kind::WRITE_ROWS, rows(1, false, &[1])),
        (kind::TABLE_MAP, map(1, "orders")),
        (kind::UPDATE_ROWS, rows(1, true, &[1, 2])),
        (kind::XID, vec![0; 8]),
        (kind::MARIA_GTID, vec![0; 13]),
        (kind::TABLE_MAP, map(1, "orders")),
        (kind::DELETE_ROWS, rows(1, false, &[2])),
        (kind::XID, vec![0; 8]),
    ];
    for missing in 1..bodies.len() - 1 {
        let (mut log, mut server) = (log(), Server::new());
        let mut at = None;
        let stop = bodies.iter().enumerate().find_map(|(index, (kind, body))| {
            let event = server.event(*kind, body);
            at = at.or((index == missing).then(|| Place::new(3, u64::from(event.end - event.size))));
            (index != missing).then(|| log.read(&event).err()).flatten()
        });
        let stop = stop.unwrap_or_else(|| panic!("{missing} is missed"));
        assert_eq!(stop.place, at, "{missing}: {stop}");
        let weighed = ids(&weighed(&mut log));
        assert!(weighed.len() <= 4 && log.position() < server.place.position(), "{missing}: {weighed:?}");
    }
}

#[test]
fn the_text_of_statements_and_what_opens_a_file_need_not_be_sent() {
    let (mut log, mut server) = (log(), Server::new());
    let mut read = |skipped: u64, kind: u8, body: &[u8]| {
        server.place.offset += skipped;
        log.read(&server.event(kind, body)).expect("it is read")
    };
    read(0, kind::FORMAT_DESCRIPTION, &[4, 0]);
    read(40, kind::MARIA_GTID_LIST, &[]);
    for _ in 0..2 {
        read(0, kind::MARIA_GTID, &[0; 13]);
        for id in [1, 2] {
            read(100, kind::TABLE_MAP, &map(1, "orders"));
            read(0, kind::WRITE_ROWS, &rows(1, false, &[id]));
        }
        read(0, kind::XID, &[0; 8]);
    }
    // Rows that a definition makes are of its own transaction.
    read(0, kind::MARIA_GTID, &[0; 13]);
    read(0, kind::QUERY, &query("create table copies select * from orders"));
    read(100, kind::TABLE_MAP, &map(2, "copies"));
    read(0, kind::WRITE_ROWS, &rows(2, false, &[1]));
    read(0, kind::XID, &[0; 8]);
    assert_eq!(ids(&weighed(&mut log)), [(1, 1), (2, 1), (1, 1), (2, 1)]);
}

#[test]
fn a_transaction_without_an_end_in_a_crashed_servers_log_stops_the_source() {
    let mut rotate = 4u64.to_le_bytes().to_vec();
    rotate.extend_from_slice(b"bin.000004");
    let turn =
        Event { kind: kind::ROTATE, timestamp: 0, server: 1, size: 40, end: 0, flags: ARTIFICIAL, body: &rotate };
    for (table, stops) in [("orders", true), ("buyers", false)] {
        let (mut log, mut server) = (log(), Server::new());
        log.read(&server.event(kind::MARIA_GTID, &[0; 13])).expect("it is read");
        log.read(&server.event(kind::TABLE_MAP, &map(1, table))).expect("it is read");
        log.read(&server.event(kind::WRITE_ROWS, &rows(1, false, &[1]))).expect("it is read");
        match log.read(&turn) {
            Err(stop) => assert!(stops && stop.kind == StopKind::Loss && stop.place == Some(server.place), "{stop}"),
            Ok(()) => assert!(!stops && log.resume() == Place::new(4, 4), "nobody counts {table}"),
        }
    }
}

#[test]
fn a_statement_that_touches_a_table_stops_before_it_and_may_be_passed() {
    let text = query("truncate table orders");
    let (mut one, mut server) = (log(), Server::new());
    let stop = one.read(&server.event(kind::QUERY, &text)).expect_err("it stops");
    assert_eq!((stop.kind, stop.place, one.position()), (StopKind::Loss, Some(Place::new(3, 4)), Position::ZERO));
    assert!(one.is_whole());
    let mut passing = log();
    passing.start.passed = Place::new(3, 4).position();
    let mut server = Server::new();
    assert_eq!(passing.read(&server.event(kind::QUERY, &text)), Ok(()));
    assert!(passing.read(&server.event(kind::QUERY, &text)).is_err(), "only that one");
}

#[test]
fn a_column_that_is_added_is_followed() {
    let (mut log, mut server) = (log(), Server::new());
    log.read(&server.event(kind::QUERY, &query("alter table orders add column note text first")))
        .expect("it is harmless");
    assert_eq!(log.tables()[0].layout.declared.len(), 3);
    let stop =
        log.read(&server.event(kind::TABLE_MAP, &map(1, "orders"))).expect_err("the log has another table than that");
    assert_eq!(stop.kind, StopKind::Definition);
    assert!(stop.to_string().contains("shop.orders") && stop.to_string().contains("binlog_row_metadata"), "{stop}");
}

#[test]
fn a_compressed_transaction_is_read_whole_or_stops() {
    let inner = [
        (kind::QUERY, query("BEGIN")),
        (kind::TABLE_MAP, map(1, "orders")),
        (kind::WRITE_ROWS, rows(1, false, &[1])),
        (kind::WRITE_ROWS, rows(1, false, &[2])),
        (kind::XID, vec![0; 8]),
    ];
    let size: usize = inner.iter().map(|(_, body)| 19 + body.len()).sum();
    let mut payload = vec![2, 1, 0, 3, 3, 252];
    payload.extend_from_slice(&(size as u16).to_le_bytes());
    payload.extend_from_slice(&[1, 1, 9, 0]);
    let bare = |(kind, body): &'_ (u8, Vec<u8>)| (*kind, body.clone());
    let (mut log, mut server) = (log(), Server::new());
    log.read(&server.event(kind::GTID, &[0; 25])).expect("it is read");
    let start = server.place;
    log.read(&server.event(kind::TRANSACTION_PAYLOAD, &payload)).expect("it is read");
    for (kind, body) in inner.iter().map(bare) {
        log.read(&Event { kind, timestamp: 0, server: 1, size: 0, end: 77, flags: 0, body: &body })
            .expect("it is read");
    }
    let weighed = weighed(&mut log);
    assert_eq!(ids(&weighed), [(1, 1), (2, 1)]);
    assert_eq!((weighed[1].0, log.position(), log.resume()), (start.row(2), server.place.position(), server.place));

    let (mut log, mut server) = (self::log(), Server::new());
    log.read(&server.event(kind::TRANSACTION_PAYLOAD, &payload)).expect("it is read");
    let stop = log.read(&server.event(kind::GTID, &[0; 25])).expect_err("it vanished");
    assert!(stop.to_string().contains("could not be unpacked"), "{stop}");
}

#[test]
fn what_cannot_be_read_stops_and_says_where() {
    for (events, part) in [
        (vec![(200, vec![])], "unknown type 200"),
        (vec![(kind::INCIDENT, vec![1, 0])], "lacks changes"),
        (vec![(kind::MARIA_QUERY_COMPRESSED, vec![])], "log_bin_compress=OFF"),
        (vec![(kind::TABLE_MAP, map(1, "orders")), (168, vec![1, 0, 0, 0, 0, 0, 0, 0])], "log_bin_compress=OFF"),
        (vec![(kind::TABLE_MAP, map(1, "orders")), (39, vec![1, 0, 0, 0, 0, 0, 0, 0])], "binlog_row_value_options"),
        (vec![(kind::WRITE_ROWS, rows(1, false, &[1]))], "without a table map"),
        (
            vec![
                (kind::QUERY, query("XA START 'a'")),
                (kind::TABLE_MAP, map(1, "orders")),
                (kind::WRITE_ROWS, rows(1, false, &[1])),
            ],
            "XA",
        ),
        (
            vec![
                (kind::TABLE_MAP, map(1, "orders")),
                (kind::WRITE_ROWS, rows(1, false, &[1])),
                (kind::QUERY, query("ROLLBACK")),
            ],
            "rolled back",
        ),
        (
            vec![(kind::TABLE_MAP, map(1, "orders")), (kind::WRITE_ROWS, rows(1, false, &[1])[..15].to_vec())],
            "shop.orders",
        ),
    ] {
        let (mut log, mut server) = (log(), Server::new());
        let (last, before) = events.split_last().expect("events");
        for (kind, body) in before {
            log.read(&server.event(*kind, body)).expect("it is read");
        }
        let place = server.place;
        let stop = log.read(&server.event(last.0, &last.1)).expect_err(part);
        assert!(stop.to_string().contains(part), "{part}: {stop}");
        assert_eq!(stop.place, Some(place), "{part}");
    }
    let (mut log, mut server) = (log(), Server::new());
    let known = Event { flags: 0x80, ..server.event(200, &[]) };
    assert_eq!(log.read(&known), Ok(()), "it says that it may be passed over");
}

#[test]
fn the_log_goes_from_file_to_file_and_never_back() {
    let (mut log, mut server) = (log(), Server::new());
    let rotate = |offset: u64, file: &str| [&offset.to_le_bytes(), file.as_bytes()].concat();
    log.read(&server.event(kind::ROTATE, &rotate(4, "bin.000004"))).expect("the next file");
    assert_eq!((log.place(), log.resume()), (Place::new(4, 4), Place::new(4, 4)));
    for name in ["bin.000003", "other.000005", "nonsense"] {
        let mut server = Server { place: Place::new(4, 4) };
        assert!(log.read(&server.event(kind::ROTATE, &rotate(4, name))).is_err(), "{name}");
    }
}

proptest! {
    #[test]
    fn however_often_the_connection_is_lost_each_row_is_weighed_once(
        transactions in prop::collection::vec(prop::collection::vec(1usize..4, 1..4), 1..6),
        losses in prop::collection::vec(0usize..40, 0..6),
    ) {
        let (mut bodies, mut next) = (Vec::new(), 0);
        for transaction in &transactions {
            bodies.push((kind::GTID, vec![0; 25]));
            bodies.push((kind::TABLE_MAP, map(1, "orders")));
            for count in transaction {
                let values: Vec<i32> = (next..).take(*count).collect();
                next += *count as i32;
                bodies.push((kind::WRITE_ROWS, rows(1, false, &values)));
            }
            bodies.push((kind::XID, vec![0; 8]));
        }
        let (mut log, mut all, mut losses) = (log(), Vec::new(), losses);
        loop {
            // The server sends from where it is asked.
            let (mut server, mut sent) = (Server::new(), 0);
            let loss = losses.pop();
            let mut finished = true;
            for (kind, body) in &bodies {
                let start = server.place;
                let event = server.event(*kind, body);
                if start < log.resume() && sent == 0 {
                    continue;
                }
                if loss == Some(sent) {
                    finished = false;
                    break;
                }
                sent += 1;
                prop_assert_eq!(log.read(&event), Ok(()));
                if sent % 3 == 0 {
                    all.extend(weighed(&mut log));
                }
            }
            if finished {
                break;
            }
            log.begin_again();
        }
        all.extend(weighed(&mut log));
        prop_assert!(all.windows(2).all(|pair| pair[0].0 < pair[1].0), "positions grow");
        prop_assert_eq!(all.iter().map(|(_, id, _)| *id).collect::<Vec<_>>(), (0..i64::from(next)).collect::<Vec<_>>());
    }

    #[test]
    fn no_bytes_panic(events in prop::collection::vec((0u8..176, prop::collection::vec(any::<u8>(), 0..60)), 0..8)) {
        let (mut log, mut server) = (log(), Server::new());
        log.read(&server.event(kind::TABLE_MAP, &map(1, "orders"))).expect("it is read");
        for (kind, mut body) in events {
            if event::action(kind).is_some() && body.len() > 6 {
                body[..6].copy_from_slice(&[1, 0, 0, 0, 0, 0]);
            }
            if log.read(&server.event(kind, &body)).is_err() {
                break;
            }
        }
    }
}

#[test]
fn transactions_are_named_once_they_are_read_whole() {
    let (mut log, mut server) = (log(), Server::new());
    let named = |sequence: u64| [&sequence.to_le_bytes()[..], &[0; 5]].concat();
    let gtids = |log: &Log| log.gtids().map(ToString::to_string).unwrap_or_default();
    log.read(&server.event(kind::MARIA_GTID, &named(5))).expect("it is read");
    log.read(&server.event(kind::TABLE_MAP, &map(1, "orders"))).expect("it is read");
    assert_eq!(gtids(&log), "0-1-4");
    log.read(&server.event(kind::XID, &[0; 8])).expect("it is read");
    assert_eq!(gtids(&log), "0-1-5");
    log.read(&server.event(kind::MARIA_GTID, &named(6))).expect("it is read");
    log.read(&server.event(kind::QUERY, &query("create table other (a int)"))).expect("it is read");
    assert_eq!((gtids(&log), log.resume()), ("0-1-6".into(), server.place));
    log.read(&server.event(kind::MARIA_GTID, &named(7))).expect("it is read");
    log.begin_again();
    assert_eq!(gtids(&log), "0-1-6", "it comes again");
    log.read(&server.event(kind::ANONYMOUS_GTID, &[])).expect("it is read");
    assert_eq!(log.gtids(), None, "what has no name cannot be found elsewhere");
}
