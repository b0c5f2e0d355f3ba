use super::*;
use crate::config::Loaded;

fn source(text: &str) -> Option<Source> {
    Some(Source { file: "shop/cluster.toml".into(), text: text.to_owned() })
}

fn load(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, String> {
    let variables = variables.iter().map(|(name, text)| (name.into(), text.into()));
    Loaded::new(Layers::new(source(text), variables)).map_err(|error| error.to_string())
}

fn error(text: &str) -> String {
    load(text, &[]).expect_err(text)
}

#[test]
fn the_shipped_file_alone_is_a_whole_and_valid_configuration() {
    let loaded = Loaded::new(Layers::new(None, [])).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(loaded.config.cluster.partitions, 64);
    assert_eq!(loaded.config.metrics.len(), 1);
}

#[test]
fn a_file_replaces_keys_and_a_variable_replaces_the_file() {
    let text = "[cluster]\npartitions = 8\nname = 'mine'\n";
    let loaded = load(text, &[("HOLDFAST_CLUSTER__PARTITIONS", "16"), ("HOLDFAST_SERVER", "x")]).expect("valid");
    assert_eq!(loaded.config.cluster.partitions, 16);
    assert_eq!(loaded.config.cluster.name, "mine");
    assert_eq!(loaded.config.cluster.timezone, "UTC");
}

#[test]
fn own_tables_drop_the_shipped_metrics_and_own_metrics_keep_the_shipped_tables() {
    let table = "[[table]]\nname='t'\nkey=['k']\npartition_by='k'\ntime='at'\ncolumns={k='int',at='timestamp'}\n";
    let loaded = load(table, &[]).expect("valid");
    assert_eq!((loaded.config.tables.len(), loaded.config.metrics.len()), (1, 0));
    let metric = "[[metric]]\nname='m'\ntable='orders'\nselect=['count(*) as n']\nwindows=['day']\n";
    let loaded = load(metric, &[]).expect("valid");
    assert_eq!((loaded.config.tables.len(), loaded.config.metrics.len()), (1, 1));
}

#[test]
fn an_unknown_key_is_an_error_with_line_column_and_caret() {
    let found = error("[cluster]\nname = \"a\"\n  partitons = 64\n");
    assert!(found.starts_with("shop/cluster.toml:3:3: unknown key `partitons`"), "{found}");
    assert!(found.ends_with("  |\n3 |   partitons = 64\n  |   ^^^^^^^^^"), "{found}");
    let found = error("[nonsense]\nx = 1\n");
    assert!(found.starts_with("shop/cluster.toml:1:2: unknown key `nonsense`"), "{found}");
}

#[test]
fn a_value_of_the_wrong_type_or_unit_points_at_the_value() {
    let found = error("[cluster]\npartitions = \"many\"\n");
    assert!(found.starts_with("shop/cluster.toml:2:14: cluster.partitions: invalid type"), "{found}");
    let found = error("http.keep_alive = \"75\"\n");
    assert!(found.starts_with("shop/cluster.toml:1:19: http.keep_alive: "), "{found}");
    assert!(found.contains("ms, s, m, h, d"), "{found}");
    let found = error("[tiers.kv]\nkind = \"memcached\"\n");
    assert!(found.contains("2:8: tiers.kv.kind: there is no kind 'memcached'; kinds are embedded, kafka"), "{found}");
    let found = error("[cluster]\ntimezone = \"Mars/Olympus\"\n");
    assert!(found.contains("2:12: cluster.timezone: "), "{found}");
}

#[test]
fn a_tier_has_a_kind_that_is_for_it_and_the_place_of_its_service() {
    for (text, part) in [
        ("[tiers.kv]\nkind = \"redis\"\n", "2:8: tiers.kv.kind: kind = \"redis\" also needs urls = [\"redis://host"),
        ("[tiers.kv]\nkind = \"kafka\"\n", "2:8: tiers.kv.kind: 'kafka' is not for kv, which can be embedded or redis"),
        ("[tiers.mq]\nbrokers = [\"a:1\"]\n", "2:11: tiers.mq.brokers: is for kind = \"kafka\""),
        ("[tiers.mq]\nkind = \"kafka\"\nbrokers = [\"a\"]\n", "3:11: tiers.mq.brokers: each is \"host:port\""),
        ("[tiers.hot]\nkind = \"mysql\"\n", "2:8: tiers.hot.kind: kind = \"mysql\" also needs url"),
    ] {
        let found = error(text);
        assert!(found.contains(part), "{found}");
    }
}

#[test]
fn a_source_names_a_table_that_is_there_and_nothing_else_has() {
    let source = "[[source]]\nname = \"db\"\nkind = \"mysql\"\nurl = \"mysql://a@b\"\ntables = [\"shop.orders\"]\n";
    for (text, part) in [
        (source.replace("shop.orders", "shop.orderz"), "5:10: source[1].tables: there is no [[table]] named 'orderz'"),
        (source.replace("\"db\"", "\"push\""), "2:8: source[1].name: 'push' is what rows are from"),
        (format!("{source}{source}"), "7:8: source[2].name: two sources are named 'db'"),
        (
            format!("{source}{}", source.replace("db", "other")),
            "10:10: source[2].tables: the rows of 'orders' come from db",
        ),
        (source.replace("mysql\"\nurl", "oracle\"\nurl"), "3:8: source[1].kind: "),
    ] {
        let found = error(&text);
        assert!(found.contains(part), "{found}");
    }
}

#[test]
fn broken_toml_points_at_the_break() {
    let found = error("[cluster]\nname = \"a\n");
    assert!(found.starts_with("shop/cluster.toml:2:"), "{found}");
}

#[test]
fn a_missing_key_points_at_the_table_that_lacks_it() {
    let found = error("[cluster]\nname = 'a'\n\n[[table]]\nname = 't'\nkey = ['k']\n");
    assert!(found.starts_with("shop/cluster.toml:4:"), "{found}");
    assert!(found.contains("is missing"), "{found}");
}

#[test]
fn a_wrong_definition_points_at_its_own_line() {
    let table = "[[table]]\nname='t'\nkey=['nope']\npartition_by='k'\ntime='at'\ncolumns={k='int',at='timestamp'}\n";
    let found = error(table);
    assert!(found.starts_with("shop/cluster.toml:3:5: "), "{found}");
    let metric = "[[metric]]\nname='m'\ntable='orders'\nwhere = \"status = 'paid' and amout > 3\"\n\
                  select=['count(*) as n']\nwindows=['day']\n";
    let found = error(metric);
    assert!(found.starts_with("shop/cluster.toml:4:30: "), "{found}");
    let metric = "[[metric]]\nname='m'\ntable='nowhere'\nselect=['count(*) as n']\nwindows=['day']\n";
    assert!(error(metric).starts_with("shop/cluster.toml:3:7: "), "{}", error(metric));
}

#[test]
fn a_wrong_variable_is_named() {
    let found = load("", &[("HOLDFAST_CLUSTER__PARTITIONS", "many")]).expect_err("invalid");
    assert!(found.contains("HOLDFAST_CLUSTER__PARTITIONS"), "{found}");
    let found = load("", &[("HOLDFAST_CLUSTER__PARTITONS", "8")]).expect_err("invalid");
    assert!(found.contains("HOLDFAST_CLUSTER__PARTITONS: unknown key"), "{found}");
}

#[test]
fn listening_beyond_loopback_without_tokens_is_refused_at_its_line() {
    let found = error("[http]\nlisten = \"0.0.0.0:7070\"\n");
    assert!(found.starts_with("shop/cluster.toml:2:10: "), "{found}");
    let tokens = "[http]\nlisten = \"0.0.0.0:7070\"\ntokens = [{name='a', token={env='A'}, scopes=['admin']}]\n";
    assert!(load(tokens, &[]).is_ok());
}

#[test]
fn a_secret_is_never_shown() {
    let tokens = "[http]\ntokens = [{name='a', token='verysecret', scopes=['admin']}]\n";
    let loaded = load(tokens, &[]).expect("valid");
    let shown = toml::to_string(&loaded.config).expect("a config is TOML") + &format!("{:?}", loaded.config);
    assert!(!shown.contains("verysecret"), "{shown}");
}
