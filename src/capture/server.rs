//! Whether a server's settings are such that its log holds every change, and what to change if not. Pure.
//!
//! Invariant: all that is wrong is said at once, each with what to set it to.

use std::collections::HashMap;

use super::stop::{Stop, StopKind};
use crate::model::units::Millis;

/// Whose server it is: their logs differ in some events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    MySql,
    MariaDb,
}

/// What a server says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// `show global variables`, in lower case.
    pub variables: HashMap<String, String>,
    pub tables: Vec<TableFacts>,
    /// `Binlog_Do_DB` and `Binlog_Ignore_DB`.
    pub only_databases: String,
    pub ignored_databases: String,
}

/// What a server says of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFacts {
    pub database: String,
    pub name: String,
    pub engine: String,
    /// Foreign keys whose changes the storage engine makes without the log.
    pub cascades: Vec<String>,
}

impl Facts {
    fn get(&self, name: &str) -> &str {
        self.variables.get(name).map_or("", String::as_str)
    }

    pub fn flavour(&self) -> Flavour {
        let is_maria =
            self.get("version").to_lowercase().contains("mariadb") || self.variables.contains_key("gtid_domain_id");
        if is_maria { Flavour::MariaDb } else { Flavour::MySql }
    }

    /// As people name it.
    pub fn product(&self) -> String {
        let name = match self.flavour() {
            Flavour::MySql => "MySQL",
            Flavour::MariaDb => "MariaDB",
        };
        format!("{name} {}", self.get("version"))
    }

    /// Major and minor.
    pub fn version(&self) -> (u32, u32) {
        let mut numbers = self.get("version").split('.').map(|part| {
            let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..end].parse().unwrap_or(0)
        });
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    /// Tells this server from others.
    pub fn identity(&self) -> String {
        match self.get("server_uuid") {
            "" => format!("server_id {}", self.get("server_id")),
            uuid => uuid.to_owned(),
        }
    }

    /// Has every transaction of a MySQL server a GTID?
    pub fn names_transactions(&self) -> bool {
        self.is_on("gtid_mode")
    }

    fn is_on(&self, name: &str) -> bool {
        ["on", "1"].contains(&self.get(name).to_lowercase().as_str())
    }

    /// The statement that tells where the log ends.
    pub fn log_end_query(&self) -> &'static str {
        let renamed = self.flavour() == Flavour::MySql && self.version() >= (8, 2);
        if renamed { "show binary log status" } else { "show master status" }
    }

    /// The shortest time that the log is kept; `None`: for ever.
    fn kept_seconds(&self) -> Option<f64> {
        if self.get("binlog_expire_logs_auto_purge").eq_ignore_ascii_case("off") {
            return None;
        }
        let seconds: f64 = self.get("binlog_expire_logs_seconds").parse().unwrap_or(0.0);
        let days: f64 = self.get("expire_logs_days").parse().unwrap_or(0.0);
        [seconds, days * 86_400.0].into_iter().find(|kept| *kept > 0.0)
    }
}

/// Checks a server; `server_id` is the one that we have.
pub fn check(facts: &Facts, server_id: u32, log_kept: Millis) -> Result<(), Stop> {
    let mut wrong = Vec::new();
    let (oldest, name) = match facts.flavour() {
        Flavour::MySql => ((5, 7), "MySQL"),
        Flavour::MariaDb => ((10, 4), "MariaDB"),
    };
    if facts.version() < oldest {
        wrong.push(format!("{name} {} is older than {}.{}", facts.get("version"), oldest.0, oldest.1));
    }
    for (variable, needed, is_needed) in [
        ("log_bin", "ON", true),
        ("binlog_format", "ROW", true),
        ("binlog_row_image", "FULL", true),
        ("log_bin_compress", "OFF", false),
        ("binlog_row_value_options", "", false),
    ] {
        let found = facts.variables.get(variable).map(String::as_str);
        let is_on = |value: &str| match value {
            "1" => "ON".to_owned(),
            "0" => "OFF".to_owned(),
            _ => value.to_uppercase(),
        };
        if found.map_or(is_needed, |found| is_on(found) != needed) {
            wrong.push(format!("set {variable}='{needed}' (it is '{}')", found.unwrap_or("not there")));
        }
    }
    if facts.get("server_id").parse() == Ok(server_id) || server_id == 0 {
        wrong.push(format!("set another server_id for the [[source]]: {server_id} is the server's own, or none"));
    }
    if let Some(kept) = facts.kept_seconds().filter(|kept| *kept * 1_000.0 < log_kept.0 as f64) {
        let seconds = log_kept.0 / 1_000;
        wrong.push(format!("set binlog_expire_logs_seconds={seconds} or more: the log is kept for {kept} s only"));
    }
    // A replica that does not log what it replicates has next to nothing in its log.
    let is_replica = !facts.get("gtid_slave_pos").is_empty() || facts.is_on("read_only");
    let logs_all = facts.is_on("log_slave_updates") || facts.is_on("log_replica_updates");
    if is_replica && !logs_all {
        wrong.push("set log_slave_updates='ON': what a replica gets is not in its log without".to_owned());
    }
    tables(facts, &mut wrong);
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Stop::new(
        StopKind::Server,
        format!("the server is not set up for it: {}", wrong.join("; ")),
        "change it; it is looked at again by itself",
    ))
}

fn tables(facts: &Facts, wrong: &mut Vec<String>) {
    let listed = |list: &str, database: &str| list.split(',').any(|name| name.trim().eq_ignore_ascii_case(database));
    for table in &facts.tables {
        let TableFacts { database, name, engine, cascades } = table;
        if !facts.only_databases.is_empty() && !listed(&facts.only_databases, database)
            || listed(&facts.ignored_databases, database)
        {
            wrong.push(format!("let the log have the database {database} (binlog_do_db, binlog_ignore_db)"));
        }
        if !["innodb", "rocksdb"].contains(&engine.to_lowercase().as_str()) {
            wrong.push(format!(
                "{database}.{name} is of the engine {engine}, which has no transactions: alter it to InnoDB"
            ));
        }
        for key in cascades {
            wrong.push(format!("{database}.{name} has the foreign key {key}, whose cascaded changes the log does not have: drop its action"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(changes: &[(&str, &str)]) -> Facts {
        let usual = [
            ("version", "10.11.6-MariaDB-0+deb12u1-log"),
            ("log_bin", "ON"),
            ("binlog_format", "ROW"),
            ("binlog_row_image", "FULL"),
            ("log_bin_compress", "OFF"),
            ("server_id", "1"),
            ("expire_logs_days", "10.000000"),
            ("binlog_expire_logs_seconds", "0"),
        ];
        let variables =
            usual.iter().chain(changes).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let table = |engine: &str| TableFacts {
            database: "shop".into(),
            name: "orders".into(),
            engine: engine.into(),
            cascades: Vec::new(),
        };
        Facts { variables, tables: vec![table("InnoDB")], ..Facts::default() }
    }

    const DAY: Millis = Millis(86_400_000);

    #[test]
    fn servers_that_are_set_up_pass() {
        let mysql = [
            ("version", "8.4.3"),
            ("server_uuid", "a-b"),
            ("binlog_row_value_options", ""),
            ("log_bin_compress", "OFF"),
        ];
        for (facts, flavour, query) in [
            (facts(&[]), Flavour::MariaDb, "show master status"),
            (facts(&[("version", "11.4.2-MariaDB")]), Flavour::MariaDb, "show master status"),
            (facts(&[("version", "5.7.44-log")]), Flavour::MySql, "show master status"),
            (facts(&mysql), Flavour::MySql, "show binary log status"),
            (facts(&[("expire_logs_days", "0")]), Flavour::MariaDb, "show master status"),
            (
                facts(&[("gtid_slave_pos", "0-1-5"), ("log_slave_updates", "ON")]),
                Flavour::MariaDb,
                "show master status",
            ),
        ] {
            assert_eq!(check(&facts, 7, DAY), Ok(()));
            assert_eq!((facts.flavour(), facts.log_end_query()), (flavour, query));
        }
        assert_eq!((facts(&mysql).identity(), facts(&[]).identity()), ("a-b".into(), "server_id 1".into()));
    }

    #[test]
    fn everything_wrong_is_said_with_what_to_change() {
        let mut facts = facts(&[
            ("version", "5.6.1"),
            ("log_bin", "0"),
            ("binlog_format", "MIXED"),
            ("binlog_row_image", "MINIMAL"),
            ("log_bin_compress", "ON"),
            ("binlog_expire_logs_seconds", "3600"),
            ("server_id", "7"),
            ("gtid_slave_pos", "0-1-5"),
        ]);
        facts.tables[0].engine = "MyISAM".into();
        facts.tables[0].cascades = vec!["fk_buyer".into()];
        facts.ignored_databases = "a,shop".into();
        let text = check(&facts, 7, DAY).expect_err("nothing is right").to_string();
        for part in
            ["5.6.1", "log_bin='ON'", "binlog_format='ROW'", "binlog_row_image='FULL'", "log_bin_compress='OFF'"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        for part in
            ["seconds=86400", "another server_id", "InnoDB", "fk_buyer", "binlog_ignore_db", "log_slave_updates"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
