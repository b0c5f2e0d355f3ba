//! Definitions of metrics and catalogs: what is accepted, and how what is not is reported.

use super::*;
use crate::model::catalog::{Catalog, CatalogError};
use crate::model::schema::TableConfig;
use crate::model::window::Calendar;

fn orders() -> TableConfig {
    toml::from_str(
        r#"
        name = "orders"
        key = ["order_id"]
        partition_by = "merchant_id"
        time = "paid_at"
        columns = { order_id = "int", merchant_id = "int", status = "text", channel = "text", amount = "decimal(12,2)",
                    buyer_id = "int", weight = "double", paid_at = "timestamp" }
        "#,
    )
    .expect("a table")
}

fn gmv() -> MetricConfig {
    toml::from_str(
        r#"
        name = "gmv"
        table = "orders"
        where = "status = 'paid'"
        group_by = ["channel"]
        select = ["count(*) as orders", "sum(amount) as gmv", "avg(amount) as basket", "min(amount) as smallest",
                  "max(paid_at) as latest", "count(distinct buyer_id) as buyers",
                  "count(*) filter (where amount > 100) as large"]
        windows = ["hour", "day"]
        "#,
    )
    .expect("a metric")
}

fn catalog(change: impl FnOnce(&mut MetricConfig)) -> Result<Catalog, CatalogError> {
    let mut config = gmv();
    change(&mut config);
    Catalog::new(&[orders()], &[config], Calendar::utc())
}

fn refused(change: impl FnOnce(&mut MetricConfig)) -> String {
    catalog(change).expect_err("a wrong definition").to_string()
}

#[test]
fn a_metric_is_one_table_for_each_window_with_the_key_first() {
    let catalog = catalog(|_| {}).expect("a good definition");
    let names: Vec<&str> = catalog.metric_tables().iter().map(|table| &*table.name).collect();
    assert_eq!(names, ["gmv_hour", "gmv_day"]);
    let table = catalog.metric_table("GMV_Day").expect("a table");
    let columns = table.schema.fields().iter().map(|field| {
        format!("{} {}{}", field.name(), type_name(field.data_type()), if field.is_nullable() { "" } else { "!" })
    });
    assert_eq!(
        columns.collect::<Vec<_>>(),
        [
            "window_start timestamp!",
            "merchant_id int!",
            "channel text",
            "orders int!",
            "gmv decimal(38,2)",
            "basket decimal(38,6)",
            "smallest decimal(12,2)",
            "latest timestamp",
            "buyers int!",
            "large int!"
        ]
    );
}

#[test]
fn the_partition_key_is_put_first_wherever_it_is_named() {
    let group = |names: &[&str]| {
        let catalog = catalog(|metric| metric.group_by = names.iter().map(|name| name.to_string()).collect());
        catalog.map(|catalog| catalog.metrics()[0].group.clone()).map_err(|error| error.to_string())
    };
    assert_eq!(group(&[]), Ok(vec![1]));
    assert_eq!(group(&["channel", "merchant_id"]), Ok(vec![1, 3]));
    assert!(group(&["channel", "channel"]).is_err_and(|error| error.contains("twice")));
    assert!(group(&["weight"]).is_err_and(|error| error.contains("double")));
    let error = group(&["region"]).expect_err("no such column");
    assert_eq!(error, "[[metric]] 'gmv', group_by: table 'orders' has no column 'region'");
}

#[test]
fn a_changed_meaning_is_another_id_and_the_same_one_is_not() {
    let id = |change: fn(&mut MetricConfig)| {
        let catalog = catalog(change).expect("a good definition");
        catalog.metric_tables().iter().find(|table| table.window == WindowKind::Hour).expect("hours").id
    };
    let plain = id(|_| {});
    assert_eq!(plain, id(|_| {}));
    assert_eq!(plain, id(|metric| metric.windows.push(WindowKind::Minute)), "another window changes nothing here");
    assert_ne!(plain, id(|metric| metric.filter = None));
    assert_ne!(plain, id(|metric| metric.select.truncate(3)));
    assert_ne!(plain, id(|metric| metric.group_by.clear()));
    assert_ne!(plain, id(|metric| metric.name = "sales".into()));
    let berlin = Calendar::new("Europe/Berlin").expect("a zone");
    let moved = Catalog::new(&[orders()], &[gmv()], berlin).expect("a good definition");
    assert_ne!(plain, moved.metric_tables()[0].id);
    assert_ne!(catalog(|_| {}).expect("good").fingerprint(), moved.fingerprint());
}

#[test]
fn a_wrong_definition_names_the_metric_the_key_and_the_place() {
    let error = refused(|metric| metric.filter = Some("status = 'paid' and amuont > 5".into()));
    assert!(error.starts_with("[[metric]] 'gmv', where: there is no column 'amuont'"), "{error}");
    assert!(error.ends_with("\n  status = 'paid' and amuont > 5\n                      ^"), "{error}");
    let cases = [
        ("sum(amount)", "a name is needed"),
        ("sum(weight) as w", "cast it first"),
        ("sum(status) as s", "needs numbers, not text"),
        ("amount as a", "a metric selects aggregates"),
        ("sum(amount) + 1 as a", "a metric selects aggregates"),
        ("median(amount) as m", "a metric selects aggregates"),
        ("sum(distinct amount) as s", "only count can be distinct"),
        ("sum(amount) over () as s", "no window functions"),
        ("sum(*) as s", "name a column"),
        ("sum(amount, 2) as s", "one argument"),
        ("count(*) as window_start", "twice"),
        ("count(*) as CHANNEL", "twice"),
        ("count(*) as _n", "starting with a letter"),
        ("count(*) as n, 5", "expected the end"),
        ("count(*) filter (where amount) as n", "a condition is bool"),
        ("count(*) filter (where paid_at < now()) as n", "now()"),
        ("sum(amount * amount * amount) as n", "28 digits"),
        ("sum(sum(amount)) as n", "aggregate"),
        ("*", "an aggregate like"),
        ("", "expected"),
    ];
    for (text, expected) in cases {
        let error = refused(|metric| metric.select = vec![text.into()]);
        assert!(error.starts_with("[[metric]] 'gmv', select: ") && error.contains(expected), "{text}: {error}");
    }
    assert!(refused(|metric| metric.windows.clear()).contains("windows: one or more"));
    assert!(refused(|metric| metric.windows = vec![WindowKind::Day; 2]).contains("each once"));
    assert!(refused(|metric| metric.select.clear()).contains("at least one"));
    assert!(refused(|metric| metric.table = "order".into()).contains("table: there is no table 'order'"));
    assert!(refused(|metric| metric.name = "g m v".into()).contains("name: "));
}

#[test]
fn names_of_tables_and_metrics_are_unique() {
    let error = Catalog::new(&[orders(), orders()], &[], Calendar::utc()).expect_err("two of a name");
    assert_eq!(error.to_string(), "[[table]] 'orders', name: there are two tables of this name");
    let error = Catalog::new(&[orders()], &[gmv(), gmv()], Calendar::utc()).expect_err("two of a name");
    assert_eq!(error.to_string(), "[[metric]] 'gmv', name: there are two metrics of this name");
}

#[test]
fn a_definition_with_an_unknown_key_is_refused() {
    let unknown = toml::from_str::<MetricConfig>("name = 'a'\ntable = 'b'\nselect = []\nwindows = []\nwhen = 'x'");
    assert!(unknown.expect_err("an unknown key").to_string().contains("when"));
    assert_eq!(toml::from_str(&toml::to_string(&gmv()).expect("TOML")), Ok(gmv()));
}
