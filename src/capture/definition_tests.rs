use super::*;
use crate::capture::statement::words;
use crate::model::schema::{Table, TableConfig};

fn layout() -> Layout {
    let text =
        "name = 'orders'\nkey = ['id']\npartition_by = 'id'\ntime = 'at'\ncolumns = { id = 'int', at = 'timestamp' }";
    let table = Table::new(&toml::from_str::<TableConfig>(text).expect("a table")).expect("it is consistent");
    let column =
        |(name, sql_type): (&str, &str)| Declared { name: name.into(), sql_type: sql_type.into(), charset: None };
    let declared = [("id", "bigint"), ("note", "text"), ("at", "datetime")].map(column).to_vec();
    Layout::new(&table, "shop.orders", declared).expect("it fits")
}

fn of(text: &str, database: &str) -> Verdict {
    let layout = layout();
    verdict(text, &words(text), database, &[Known { database: "shop", table: "orders", layout: &layout }])
}

#[test]
fn what_does_not_touch_a_captured_table_goes_on() {
    for text in [
        "create table other (id int)",
        "create table if not exists orders (id int)",
        "alter table orders add index if not exists by_at (at)",
        "create index i on orders (at)",
        "drop table other",
        "drop temporary table orders",
        "drop database elsewhere",
        "truncate other",
        "truncate warehouse.orders",
        "rename table a to b",
        "alter table other drop column at",
        "alter table orders add index i (at)",
        "alter table orders drop index i",
        "alter table orders algorithm=inplace",
        "alter table orders alter column note set default 'x'",
        "analyze table orders",
        "grant select on shop.orders to a",
        "create or replace view v as select * from other",
        "insert into heartbeat.beat values (1)",
        "flush tables",
    ] {
        let database = if text.contains("heartbeat") { "heartbeat" } else { "shop" };
        assert_eq!(of(text, database), Verdict::Nothing, "{text}");
    }
    assert_eq!(of("truncate orders", "warehouse"), Verdict::Nothing);
}

#[test]
fn columns_that_are_not_read_may_come_and_go() {
    let names = |text: &str| match of(text, "shop") {
        Verdict::Changed(0, columns) => columns.into_iter().map(|column| column.name).collect::<Vec<_>>().join(" "),
        other => panic!("{text}: {other:?}"),
    };
    for (text, expected) in [
        ("alter table orders add column a int not null default 0", "id note at a"),
        ("ALTER TABLE `shop`.`orders` ADD a INT FIRST, ADD b INT AFTER id", "a id b note at"),
        ("alter table orders drop column note", "id at"),
        ("alter table orders add column if not exists a int unsigned first", "a id note at"),
        ("alter table `orders` drop column if exists note, drop column if exists other", "id at"),
        ("alter table orders rename column note to remark", "id remark at"),
        ("alter table orders change column note remark varchar(20) after at", "id at remark"),
        ("alter table orders modify column note varchar(20) first", "note id at"),
    ] {
        assert_eq!(names(text), expected, "{text}");
    }
}

#[test]
fn what_changes_columns_that_are_read_or_is_not_understood_stops() {
    for (text, kind) in [
        ("alter table orders drop column at", StopKind::Definition),
        ("alter table orders modify column AT datetime(3)", StopKind::Definition),
        ("alter table orders change id id int", StopKind::Definition),
        ("alter table orders rename column note to at", StopKind::Definition),
        ("alter table orders rename to orders_old", StopKind::Definition),
        ("alter table orders_new rename to orders", StopKind::Definition),
        ("alter table orders partition by hash (id) partitions 4", StopKind::Definition),
        ("alter table other exchange partition p0 with table orders", StopKind::Definition),
        (
            "alter table orders add constraint c foreign key (id) references b (id) on delete cascade",
            StopKind::Definition,
        ),
        ("rename table orders to old, orders_new to orders", StopKind::Definition),
        ("alter table orders drop partition p0", StopKind::Loss),
        ("alter table shop.orders exchange partition p0 with table other", StopKind::Loss),
        ("with a as (select 1) delete from orders", StopKind::Loss),
        ("truncate table orders", StopKind::Loss),
        ("TRUNCATE `orders`", StopKind::Loss),
        ("drop table if exists a, shop.orders", StopKind::Loss),
        ("drop database if exists Shop", StopKind::Loss),
        ("create or replace table orders (id int)", StopKind::Loss),
        ("delete from orders", StopKind::Loss),
        ("update shop.orders set at = null", StopKind::Loss),
    ] {
        match of(text, "shop") {
            Verdict::Stop(stop) => assert_eq!(stop.kind, kind, "{text}: {stop}"),
            other => panic!("{text}: {other:?}"),
        }
    }
}
