//! All services and all roles, each a process of its own.
//!
//! Invariant: one platform at a time in a test binary; waits are for conditions, with a limit.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::Process;
use crate::services::kafka::Kafka;
use crate::services::mariadb::MariaDb;
use crate::services::redis::Redis;
use crate::services::{free_port, is_there};
use crate::workload::CREATE;

/// For what takes seconds on an idle machine.
pub const SOON: Duration = Duration::from_secs(90);
const PARTITIONS: u16 = 8;
pub const ROLES: [&str; 9] =
    ["master-0", "capture-0", "capture-1", "gate-0", "gate-1", "slave-0", "slave-1", "query-0", "query-1"];

/// Table and metrics that are counted.
const DEFINITIONS: &str = r#"
[[table]]
name = "orders"
key = ["order_id"]
partition_by = "merchant_id"
time = "paid_at"
columns = { order_id = "int", merchant_id = "int", status = "text", channel = "text", amount = "decimal(12,2)", buyer_id = "int", paid_at = "timestamp" }

[[metric]]
name = "gmv"
table = "orders"
where = "status = 'paid'"
group_by = ["channel"]
select = ["count(*) as orders", "sum(amount) as gmv", "avg(amount) as basket", "min(amount) as smallest", "max(amount) as largest", "count(distinct buyer_id) as buyers"]
windows = ["hour", "day"]
"#;

/// What the metric's rows must be, by SQL over the source.
fn truth(window: &str) -> String {
    format!(
        "set div_precision_increment=20; select date_format(paid_at, '{window}') as w, merchant_id, ifnull(channel, '-'), count(*), \
         sum(amount), cast(sum(amount) / count(*) as decimal(38,6)), min(amount), max(amount), count(distinct buyer_id) \
         from shop.orders where status = 'paid' and paid_at is not null group by w, merchant_id, channel"
    )
}

fn served(table: &str) -> String {
    format!(
        "select date_format(window_start, '%Y-%m-%d %H:%i'), merchant_id, ifnull(channel, '-'), orders, gmv, basket, smallest, \
         largest, buyers from holdfast.{table}"
    )
}

pub struct Platform {
    // Dropped first: no process outlives its services and the folder.
    nodes: BTreeMap<String, Process>,
    pub source: MariaDb,
    pub hot: MariaDb,
    pub kafka: Kafka,
    pub kv: Redis,
    pub cache: Redis,
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
    _folder: TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Platform {
    /// `None`, said aloud, where a service is not installed.
    pub fn start_if_there() -> Option<Self> {
        let all = [("mariadb", MariaDb::installed()), ("kafka", Kafka::installed()), ("redis", Redis::installed())];
        // All are asked, so that each that is missing is named.
        let there: Vec<bool> = all.into_iter().map(|(name, found)| is_there(name, found)).collect();
        there.into_iter().all(|there| there).then(Self::start)
    }

    fn start() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let (source, hot) = (MariaDb::start(), MariaDb::start_with(&["--skip-log-bin"]));
        let (kv, cache) = (Redis::start(), Redis::start_with(&["--maxmemory 64mb", "--maxmemory-policy volatile-lru"]));
        let kafka = Kafka::start();
        source.sql(CREATE);
        let folder = TempDir::new().expect("a temporary folder");
        let config = format!(
            "[cluster]\nname = \"shop\"\npartitions = {PARTITIONS}\nsecret = {{ file = \"secret\" }}\n[http]\nworkers = 1\n\
             [slave]\nthreads = 1\nsnapshot_interval = \"3s\"\n\
             [tiers.mq]\nkind = \"kafka\"\nbrokers = [\"{}\"]\n[tiers.kv]\nkind = \"redis\"\nurls = [\"{}\"]\n\
             [tiers.hot]\nkind = \"mysql\"\nurl = \"{}\"\nkeep_days = 0\n[tiers.cache]\nkind = \"redis\"\nurls = [\"{}\"]\n\
             [[source]]\nname = \"orders-db\"\nkind = \"mysql\"\nurl = \"{}\"\ntables = [\"shop.orders\"]\n{DEFINITIONS}",
            kafka.url(),
            kv.url(),
            hot.url(),
            cache.url(),
            source.url_of("root", "shop"),
        );
        for (file, text) in [("secret", "a word for tests"), ("holdfast.toml", config.as_str())] {
            std::fs::write(folder.path().join(file), text).expect("writing into the folder");
        }
        let master = free_port();
        let mut nodes = BTreeMap::new();
        for name in ROLES {
            let role = name.split('-').next().unwrap_or(name);
            let (data, listens) = (format!("data-{name}"), format!("127.0.0.1:{master}"));
            let mut arguments =
                vec!["node", "--role", role, "--name", name, "--data", &data, "--config", "holdfast.toml"];
            arguments.extend(["--join", listens.as_str()]);
            if role == "master" {
                arguments.extend(["--listen", listens.as_str()]);
            }
            let mut process = Process::new(name, &arguments, free_port(), folder.path());
            process.start();
            nodes.insert(name.to_owned(), process);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().expect("a client");
        let mut platform =
            Self { nodes, source, hot, kafka, kv, cache, runtime, client, _folder: folder, _alone: alone };
        for name in ROLES {
            platform.wait(&format!("{name} is ready"), |platform| platform.get(name, "/readyz").map(drop));
        }
        platform
    }

    pub fn node(&mut self, name: &str) -> &mut Process {
        self.nodes.get_mut(name).unwrap_or_else(|| panic!("there is no {name}"))
    }

    fn get(&mut self, name: &str, path: &str) -> Result<Value, String> {
        if let Some(status) = self.node(name).ended() {
            panic!("{name} ended with {status}");
        }
        let url = format!("http://127.0.0.1:{}{path}", self.node(name).http);
        let request = self.client.get(url);
        self.answer(request)
    }

    /// Waits until `found` finds something; the failure says what it saw last.
    pub fn wait<T>(&mut self, what: &str, mut found: impl FnMut(&mut Self) -> Result<T, String>) -> T {
        let begun = Instant::now();
        loop {
            match found(self) {
                Ok(found) => return found,
                Err(last) => assert!(begun.elapsed() < SOON, "{what}: not within {SOON:?}; last: {last}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until every metric row in the serving database is what SQL over the source gives, and the answers of the query
    /// platform are the same and exact.
    pub fn wait_exact(&mut self) {
        for (table, window) in [("gmv_hour", "%Y-%m-%d %H:00"), ("gmv_day", "%Y-%m-%d 00:00")] {
            let truth = sorted(self.source.sql(&truth(window)).lines());
            assert!(!truth.is_empty(), "the shop has sold something");
            self.wait(&format!("{table} is what the source says"), |platform| {
                let served = sorted(platform.hot.try_sql(&served(table))?.lines());
                let answered = platform.answered(table).unwrap_or_else(|reason| reason);
                if served == truth && answered == truth {
                    return Ok(());
                }
                let (served, answered) = (difference(&truth, &served), difference(&truth, &answered));
                Err(format!("the serving database has {served}\nthe query platform answers {answered}"))
            });
        }
    }

    /// The metric rows as the query platform gives them, written as a database would; an error if the answer is not exact.
    fn answered(&mut self, table: &str) -> Result<String, String> {
        let columns = "window_start, merchant_id, channel, orders, gmv, basket, smallest, largest, buyers";
        let answer = self.query("query-0", &format!("select {columns} from {table} limit 100000"))?;
        if answer["quality"]["exact"] != true {
            return Err(format!("{table} is not exact: {}", answer["quality"]));
        }
        let text = |value: &Value| match value {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.trim_end_matches(":00Z").replacen('T', " ", 1),
            other => other.to_string(),
        };
        let rows = answer["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
        let line = |row: &Value| row.as_array().map(|row| row.iter().map(text).collect::<Vec<_>>().join("\t"));
        Ok(sorted(rows.iter().filter_map(line)))
    }

    /// To the source, by a node that has nothing to do with it.
    pub fn order(&mut self, order: &str) -> Result<(), String> {
        let url = format!("http://127.0.0.1:{}/api/v1/sources/orders-db/order", self.node("query-1").http);
        self.answer(self.client.post(url).json(&json!({ "order": order }))).map(drop)
    }

    /// The texts of those that are open.
    pub fn incidents(&mut self) -> Result<Vec<String>, String> {
        let open = self.get("query-1", "/api/v1/incidents")?["open"].take();
        let open = open.as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(open.iter().map(|incident| incident["text"].as_str().unwrap_or_default().to_owned()).collect())
    }

    pub fn query(&mut self, name: &str, sql: &str) -> Result<Value, String> {
        let url = format!("http://127.0.0.1:{}/api/v1/query", self.node(name).http);
        self.answer(self.client.post(url).json(&json!({ "sql": sql })))
    }

    fn answer(&self, request: reqwest::RequestBuilder) -> Result<Value, String> {
        self.runtime.block_on(async {
            let response = request.send().await.map_err(|error| format!("{error:?}"))?;
            let (status, text) = (response.status(), response.text().await.map_err(|error| error.to_string())?);
            match status.is_success() {
                true => Ok(serde_json::from_str(&text).unwrap_or(Value::String(text))),
                false => Err(format!("{status}: {text}")),
            }
        })
    }
}

fn sorted(lines: impl Iterator<Item = impl Into<String>>) -> String {
    let mut lines: Vec<String> = lines.map(Into::into).collect();
    lines.sort();
    lines.join("\n")
}

/// The first lines that only one of two texts has.
fn difference(truth: &str, served: &str) -> String {
    let only = |one: &str, other: &str| -> Vec<String> {
        let other: std::collections::BTreeSet<&str> = other.lines().collect();
        one.lines().filter(|line| !other.contains(line)).take(3).map(str::to_owned).collect()
    };
    let (missing, surplus) = (only(truth, served), only(served, truth));
    let counts = (truth.lines().count(), served.lines().count());
    format!("{counts:?} rows; true and not there: {missing:#?}; there and not true: {surplus:#?}")
}
