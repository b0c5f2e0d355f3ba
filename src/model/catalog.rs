//! All tables and metrics of a cluster, checked together.
//!
//! Invariant: every metric's table exists; no two tables and no two metrics have one name, in whatever case it is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use thiserror::Error;
use xxhash_rust::xxh3::Xxh3;

use super::metric::{Metric, MetricConfig, MetricError, MetricTable};
use super::schema::{SchemaError, Table, TableConfig};
use super::window::Calendar;

/// Which definition is wrong, which of its keys, and why.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CatalogError {
    #[error("[[table]] '{}', {}: {}", .0.table, .0.field, .0.reason)]
    Table(SchemaError),
    #[error("[[metric]] '{metric}', {field}: {error}")]
    Metric {
        metric: String,
        field: &'static str,
        #[source]
        error: MetricError,
    },
}

/// The checked definitions, and the calendar that their windows go by.
#[derive(Debug, Clone)]
pub struct Catalog {
    calendar: Calendar,
    tables: Vec<Arc<Table>>,
    metrics: Vec<Arc<Metric>>,
    metric_tables: Vec<Arc<MetricTable>>,
    /// By captured table, the name of the stream that its changes come in.
    streams: BTreeMap<Arc<str>, Arc<str>>,
    fingerprint: u64,
}

fn find<'a, T>(all: &'a [Arc<T>], name: &str, name_of: impl Fn(&T) -> &str) -> Option<&'a Arc<T>> {
    all.iter().find(|one| name_of(one).eq_ignore_ascii_case(name))
}

impl Catalog {
    pub fn new(tables: &[TableConfig], metrics: &[MetricConfig], calendar: Calendar) -> Result<Self, CatalogError> {
        let mut catalog = Self {
            calendar,
            tables: Vec::new(),
            metrics: Vec::new(),
            metric_tables: Vec::new(),
            streams: BTreeMap::new(),
            fingerprint: 0,
        };
        for config in tables {
            catalog.add_table(config).map_err(CatalogError::Table)?;
        }
        for config in metrics {
            let fail = |(field, error)| CatalogError::Metric { metric: config.name.clone(), field, error };
            catalog.add_metric(config).map_err(fail)?;
        }
        catalog.fingerprint = catalog.compute_fingerprint();
        Ok(catalog)
    }

    /// Notes that the changes of `table` come from a database, in the stream of that name.
    pub fn capture(&mut self, table: Arc<str>, stream: Arc<str>) {
        self.streams.insert(table, stream);
    }

    /// The stream that a table's changes come in, whatever its incarnation; `None`: its rows are pushed.
    pub fn stream(&self, table: &str) -> Option<&Arc<str>> {
        self.streams.get(table)
    }

    fn add_table(&mut self, config: &TableConfig) -> Result<(), SchemaError> {
        let fail = |field, reason| Err(SchemaError { table: config.name.clone(), field, reason });
        if self.table(&config.name).is_some() {
            return fail("name", "there are two tables of this name".into());
        }
        // Rows carry columns of their own with such names.
        if let Some((name, _)) = config.columns.iter().find(|(name, _)| name.starts_with('_')) {
            return fail("columns", format!("'{name}' starts with an underscore; such names are taken"));
        }
        self.tables.push(Arc::new(Table::new(config)?));
        Ok(())
    }

    fn add_metric(&mut self, config: &MetricConfig) -> Result<(), (&'static str, MetricError)> {
        let fail = |field, reason| Err((field, MetricError::Plain(reason)));
        if find(&self.metrics, &config.name, |metric| &metric.name).is_some() {
            return fail("name", "there are two metrics of this name".into());
        }
        let Some(table) = self.tables.iter().find(|table| *table.name == *config.table) else {
            return fail("table", format!("there is no table '{}'", config.table));
        };
        let metric = Arc::new(Metric::new(config, table)?);
        for table in metric.tables(config, self.calendar.name()) {
            if self.metric_table(&table.name).is_some() {
                return fail("name", format!("another metric also makes a table '{}'", table.name));
            }
            self.metric_tables.push(Arc::new(table));
        }
        self.metrics.push(metric);
        Ok(())
    }

    fn compute_fingerprint(&self) -> u64 {
        let mut hasher = Xxh3::new();
        for table in &self.tables {
            hasher.update(table.name.as_bytes());
            for part in [table.fingerprint, table.partition_by as u64, table.time as u64, table.key.len() as u64] {
                hasher.update(&part.to_le_bytes());
            }
            table.key.iter().for_each(|column| hasher.update(&(*column as u64).to_le_bytes()));
        }
        self.metric_tables.iter().for_each(|table| hasher.update(&table.id.0.to_le_bytes()));
        hasher.update(self.calendar.name().as_bytes());
        hasher.digest()
    }

    pub fn calendar(&self) -> &Calendar {
        &self.calendar
    }

    pub fn table(&self, name: &str) -> Option<&Arc<Table>> {
        find(&self.tables, name, |table| &table.name)
    }

    pub fn tables(&self) -> &[Arc<Table>] {
        &self.tables
    }

    pub fn metrics(&self) -> &[Arc<Metric>] {
        &self.metrics
    }

    pub fn metric_tables(&self) -> &[Arc<MetricTable>] {
        &self.metric_tables
    }

    /// The metric table of a name, in whatever case: `gmv_hour`.
    pub fn metric_table(&self, name: &str) -> Option<&Arc<MetricTable>> {
        find(&self.metric_tables, name, |table| &table.name)
    }

    /// Changes with any change of a definition.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}
