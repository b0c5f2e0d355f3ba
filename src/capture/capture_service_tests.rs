use super::*;
use crate::capture::settings::SourceKind;
use crate::model::schema::TableConfig;
use crate::model::window::Calendar;

fn source(tables: &[&str], zone: &str) -> SourceSettings {
    SourceSettings {
        name: "orders-db".into(),
        kind: SourceKind::Mysql,
        url: "mysql://a@127.0.0.1:1".into(),
        tls: false,
        tls_roots: None,
        tables: tables.iter().map(|table| (*table).to_owned()).collect(),
        snapshot: true,
        server_id: 7,
        datetime_zone: zone.into(),
    }
}

fn catalog() -> Catalog {
    let text =
        "name = 'orders'\nkey = ['id']\npartition_by = 'id'\ntime = 'at'\ncolumns = { id = 'int', at = 'timestamp' }";
    let table = toml::from_str::<TableConfig>(text).expect("a table");
    Catalog::new(&[table], &[], Calendar::new("UTC").expect("a zone")).expect("it is consistent")
}

#[test]
fn tables_are_found_by_their_name_and_what_is_wrong_is_said() {
    let found = captured(&source(&["shop.orders"], "UTC"), &catalog()).expect("a table");
    assert_eq!((found[0].source().as_str(), &*found[0].table.name), ("shop.orders", "orders"));
    for (tables, zone, part) in [
        (&["orders"][..], "UTC", "not database.table"),
        (&["shop.buyers"], "UTC", "no [[table]] named 'buyers'"),
        (&["shop.orders", "old.orders"], "UTC", "two are named"),
        (&[], "UTC", "none"),
        (&["shop.orders"], "Berlin", "no IANA time zone"),
    ] {
        let error = captured(&source(tables, zone), &catalog()).expect_err("it is wrong");
        assert!(error.contains(part), "{error}");
    }
    for name in ["", "push", "a/b"] {
        let source = SourceSettings { name: name.into(), ..source(&["shop.orders"], "UTC") };
        assert!(captured(&source, &catalog()).expect_err("it is wrong").starts_with("name:"));
    }
}

#[test]
fn a_source_is_configured_by_one_table_of_toml() {
    let text = "name = 'orders-db'\nkind = 'mysql'\nurl = 'mysql://holdfast@shop:3306'\ntls = false\ntables = ['shop.orders']\nsnapshot = true\n\
        server_id = 7\ndatetime_zone = 'UTC'";
    assert_eq!(toml::from_str::<SourceSettings>(text).expect("a source").tables, ["shop.orders"]);
    let without = text.replace("snapshot = true", "");
    assert!(toml::from_str::<SourceSettings>(&without).expect_err("a key is missing").to_string().contains("snapshot"));
}
