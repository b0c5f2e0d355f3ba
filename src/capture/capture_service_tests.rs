use super::*;
use crate::capture::mysql_settings::SourceKind;
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
        password: None,
        server_id: Some(7),
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
    for (tables, zone, key, part) in [
        (&["orders"][..], "UTC", "tables", "not database.table"),
        (&["shop.buyers"], "UTC", "tables", "no [[table]] named 'buyers'"),
        (&["shop.orders", "old.orders"], "UTC", "tables", "two are named"),
        (&[], "UTC", "tables", "none"),
        (&["shop.orders"], "Berlin", "datetime_zone", "no IANA time zone"),
    ] {
        let (wrong, reason) = captured(&source(tables, zone), &catalog()).expect_err("it is wrong");
        assert!(wrong == key && reason.contains(part), "{wrong}: {reason}");
    }
    for name in ["", "push", "a/b"] {
        let source = SourceSettings { name: name.into(), ..source(&["shop.orders"], "UTC") };
        assert_eq!(captured(&source, &catalog()).expect_err("it is wrong").0, "name");
    }
}

#[test]
fn a_source_needs_a_name_a_place_and_tables_and_says_what_else_it_may_say() {
    let text = "name = 'orders-db'\nkind = 'mysql'\nurl = 'mysql://holdfast@shop:3306'\ntables = ['shop.orders']\n";
    let short: SourceSettings = toml::from_str(text).expect("a source");
    assert!(short.snapshot && !short.tls && short.datetime_zone == "UTC" && short.server_id() >= 1 << 31);
    let long =
        format!("{text}tls = true\nsnapshot = false\nserver_id = 7\ndatetime_zone = 'Asia/Tokyo'\npassword = 'hush'");
    let long: SourceSettings = toml::from_str(&long).expect("a source");
    assert!(long.tls && !long.snapshot && long.server_id() == 7 && !format!("{long:?}").contains("hush"));
    for without in ["name", "kind", "url", "tables"] {
        let text: String =
            text.lines().filter(|line| !line.starts_with(without)).map(|line| format!("{line}\n")).collect();
        let error = toml::from_str::<SourceSettings>(&text).expect_err("a key is missing").to_string();
        assert!(error.contains(without), "{error}");
    }
}
