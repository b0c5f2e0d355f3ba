//! Answers queries: admission, plan, reads, execution, quality.
//!
//! No actor: a query owns all that it works on, and what queries share (plans, blocks, counters) is built to be shared, so
//! a mailbox would only put one query behind another. Invariant: a query that was admitted ends within the deadline, and
//! is released whatever becomes of it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use futures::stream::{self, StreamExt};
use prometheus_client::metrics::histogram::Histogram;
use tokio::task::{spawn_blocking, yield_now};
use tokio::time::timeout;

use super::QueryError;
use super::admission::{Admission, ClientId};
use super::blocks::{Blocks, ReadKey};
use super::engine::{Execution, Need};
use super::plan::{Bound, Plan};
use super::plans::{Plans, Prepared};
use super::reader_service::Reader;
use super::reading::{Freshness, PartitionRead, ReadBlocks};
use super::restrict::Scan;
use super::settings::Settings;
use super::verdict::{Asked, Demand, Quality, ServedBy};
use crate::clock::{Clock, instant};
use crate::locks::lock;
use crate::metrics::{Metrics, ServedByLabel};
use crate::model::catalog::Catalog;
use crate::model::expr::Context;
use crate::model::id::{Key, PartitionId};
use crate::model::mode::Modes;
use crate::tier::Sink;

/// What a query service stands on.
pub struct Parts {
    pub catalog: Arc<Catalog>,
    pub partitions: u16,
    pub cache: Arc<dyn Sink>,
    pub hot: Arc<dyn Sink>,
    pub clock: Clock,
    pub metrics: Metrics,
    /// The tiers' modes as they are now.
    pub modes: Arc<dyn Fn() -> Modes + Send + Sync>,
    pub settings: Settings,
}

/// A query as a client sends it.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub sql: &'a str,
    pub demand: Demand,
    pub client: ClientId,
}

/// Rows, and how good they are.
#[derive(Debug)]
pub struct Answer {
    pub rows: RecordBatch,
    pub quality: Quality,
    pub timing: Timing,
}

/// Where the time went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timing {
    pub plan: Duration,
    pub read: Duration,
    pub run: Duration,
}

impl Timing {
    pub fn total(&self) -> Duration {
        self.plan + self.read + self.run
    }
}

/// The query role of one process; cheap to share.
pub struct QueryService {
    plans: Plans,
    reader: Arc<Reader>,
    partitions: u16,
    admission: Mutex<Admission>,
    modes: Arc<dyn Fn() -> Modes + Send + Sync>,
    metrics: Metrics,
    /// By `ServedBy`, looked up once.
    seconds: [Histogram; ServedBy::ALL.len()],
}

/// When a query began.
#[derive(Debug, Clone, Copy)]
struct Started {
    at: Instant,
    now_ms: i64,
}

/// Partitions read at the same time, where a sink is far away.
const READS_AT_ONCE: usize = 16;

/// Released when dropped.
struct Permit<'a> {
    admission: &'a Mutex<Admission>,
    name: ClientId,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        lock(self.admission).release(self.name);
    }
}

impl QueryService {
    pub fn new(parts: Parts) -> Self {
        let settings = parts.settings;
        let seconds = ServedBy::ALL.map(|served_by| {
            let label = ServedByLabel { served_by: served_by.as_str() };
            parts.metrics.query_seconds.get_or_create(&label).clone()
        });
        Self {
            seconds,
            plans: Plans::new(parts.catalog, &settings),
            admission: Mutex::new(Admission::new(&settings)),
            partitions: parts.partitions,
            modes: parts.modes,
            metrics: parts.metrics,
            reader: Arc::new(Reader {
                cache: parts.cache,
                hot: parts.hot,
                blocks: Blocks::new(&settings),
                clock: parts.clock,
                settings,
            }),
        }
    }

    pub fn catalog(&self) -> &Arc<Catalog> {
        self.plans.catalog()
    }

    pub fn settings(&self) -> &Settings {
        &self.reader.settings
    }

    pub async fn answer(&self, request: Request<'_>) -> Result<Answer, QueryError> {
        self.answer_for(request, None).await
    }

    /// As `answer`, for a caller that may see one partition-key value only: nothing else is read for it.
    pub async fn answer_for(&self, request: Request<'_>, only: Option<&Key>) -> Result<Answer, QueryError> {
        let started = Started { at: instant(), now_ms: self.reader.clock.now_ms() };
        let _permit = self.admit(request.client, started.now_ms)?;
        let limit = self.settings().deadline;
        let answer = match timeout(limit.duration(), self.answer_by(request, only, started)).await {
            Ok(answer) => answer.map_err(|error| self.plans.explain(request.sql, error))?,
            Err(_) => return Err(QueryError::Deadline(limit.0)),
        };
        if !answer.quality.exact {
            self.metrics.inexact_answers.inc();
        }
        let served_by = answer.quality.served_by.last().copied().unwrap_or(ServedBy::Local);
        self.seconds[served_by as usize].observe(answer.timing.total().as_secs_f64());
        Ok(answer)
    }

    fn admit(&self, client: ClientId, now_ms: i64) -> Result<Permit<'_>, QueryError> {
        match lock(&self.admission).admit(client, now_ms) {
            Ok(name) => Ok(Permit { admission: &self.admission, name }),
            Err(refusal) => {
                self.metrics.query_rejected.inc();
                Err(QueryError::Refused(refusal))
            }
        }
    }

    async fn answer_by(
        &self,
        request: Request<'_>,
        only: Option<&Key>,
        started: Started,
    ) -> Result<Answer, QueryError> {
        let prepared = self.plans.prepare(request.sql)?;
        let now_us = started.now_ms.saturating_mul(1_000);
        let mut bound = prepared.bind(&context(&prepared, self.catalog(), now_us))?;
        if let Some(key) = only {
            bound.scan.keep_only(key);
        }
        let deadline = started.at + self.settings().deadline.duration();
        let run = Run { prepared, bound, now_us, deadline };
        let planned = instant();
        let max_age_ms = request.demand.max_age_ms.map(|limit| i64::try_from(limit).unwrap_or(i64::MAX));
        let mut freshness = Freshness { max_age_ms, skip_cache: false };
        loop {
            let reads = self.read_all(&run, freshness).await?;
            let read = instant();
            let quality = self.judge(&run, &reads);
            quality.check(request.demand)?;
            let rows = self.run(&run, reads).await;
            if matches!(rows, Err(QueryError::Damaged(_))) && !freshness.skip_cache {
                freshness.skip_cache = true;
                continue;
            }
            let timing = Timing { plan: planned - started.at, read: read - planned, run: read.elapsed() };
            return Ok(Answer { rows: rows?, quality, timing });
        }
    }

    async fn run(&self, run: &Run, reads: Vec<PartitionRead>) -> Result<RecordBatch, QueryError> {
        let blocks: usize = reads.iter().map(PartitionRead::block_count).sum();
        if blocks < self.settings().offload_blocks {
            return run.rows(&reads, self.catalog(), &self.reader);
        }
        let (run, catalog, reader) = (run.clone(), self.catalog().clone(), self.reader.clone());
        let running = spawn_blocking(move || run.rows(&reads, &catalog, &reader));
        running.await.map_err(|error| QueryError::Internal(error.to_string()))?
    }

    async fn read_all(&self, run: &Run, freshness: Freshness) -> Result<Vec<PartitionRead>, QueryError> {
        let limit = self.settings().scan_limit.bytes();
        let mut keys = read_keys(&run.prepared.plan, &run.bound.scan, self.partitions);
        let within = |bytes: usize| if bytes > limit { Err(QueryError::ScanLimit(limit)) } else { Ok(()) };
        if keys.len() == 1 {
            let read = self.reader.read(keys.remove(0), freshness).await;
            within(read.stored_bytes())?;
            return Ok(vec![read]);
        }
        let reads = stream::iter(keys).map(|key| async move {
            // Sinks in this process answer at once: let other queries have their turn.
            yield_now().await;
            self.reader.read(key, freshness).await
        });
        let mut reads = std::pin::pin!(reads.buffered(READS_AT_ONCE));
        let (mut found, mut bytes) = (Vec::new(), 0usize);
        while let Some(read) = reads.next().await {
            bytes = bytes.saturating_add(read.stored_bytes());
            within(bytes)?;
            found.push(read);
        }
        Ok(found)
    }

    fn judge(&self, run: &Run, reads: &[PartitionRead]) -> Quality {
        let (table, windows_us) = (&run.prepared.plan.table, &run.bound.scan.windows_us);
        let end_us = match *windows_us.end() {
            i64::MAX => i64::MAX,
            last => self.catalog().calendar().window_end(table.window, last),
        };
        let asked = Asked {
            metric_table: &table.name,
            table: &table.metric.table.name,
            from_ms: windows_us.start().div_euclid(1_000),
            to_ms: end_us.div_euclid(1_000).saturating_add(1),
        };
        let evidence = reads.iter().map(|read| &read.evidence);
        Quality::of(evidence, asked, (self.modes)(), self.reader.clock.now_ms())
    }
}

fn context<'a>(prepared: &'a Prepared, catalog: &'a Catalog, now_us: i64) -> Context<'a> {
    Context { params: &prepared.params, now_us, calendar: catalog.calendar() }
}

/// One read for each partition that can hold rows.
fn read_keys(plan: &Plan, scan: &Scan, partitions: u16) -> Vec<ReadKey> {
    if scan.is_empty() {
        return Vec::new();
    }
    let read = |partition, keys| ReadKey { table: plan.table.id, partition, keys, days: scan.days.clone() };
    let Some(keys) = &scan.keys else {
        return (0..partitions).map(|partition| read(PartitionId(partition), None)).collect();
    };
    let mut placed: Vec<_> = keys.iter().map(|key| (key.partition(partitions), key)).collect();
    placed.sort_unstable();
    let same = |one: &(PartitionId, _), other: &(PartitionId, _)| one.0 == other.0;
    let chunks = placed.chunk_by(same);
    chunks.map(|chunk| read(chunk[0].0, Some(chunk.iter().map(|(_, key)| (*key).clone()).collect()))).collect()
}

/// A query with its values.
#[derive(Debug, Clone)]
struct Run {
    prepared: Arc<Prepared>,
    bound: Bound,
    now_us: i64,
    deadline: Instant,
}

impl Run {
    fn rows(&self, reads: &[PartitionRead], catalog: &Catalog, reader: &Reader) -> Result<RecordBatch, QueryError> {
        let context = context(&self.prepared, catalog, self.now_us);
        let mut execution = Execution::new(&self.prepared.plan, &self.bound, reader.settings.rows_limit);
        for read in reads {
            if self.push(read, reader, &mut execution, &context)? == Need::Enough {
                break;
            }
        }
        execution.finish(&context)
    }

    fn push(
        &self,
        read: &PartitionRead,
        reader: &Reader,
        execution: &mut Execution<'_>,
        context: &Context<'_>,
    ) -> Result<Need, QueryError> {
        match &read.blocks {
            ReadBlocks::Recent(recent) => {
                for block in &recent.blocks {
                    self.check_deadline(reader)?;
                    if execution.push(&block.block, context)? == Need::Enough {
                        return Ok(Need::Enough);
                    }
                }
            }
            ReadBlocks::Stored { origin, blocks, .. } => {
                let mut rows = Vec::with_capacity(blocks.len());
                for (key, block) in blocks {
                    self.check_deadline(reader)?;
                    let block = reader.blocks.rows(*origin, key, block, &self.prepared.plan.table.schema)?;
                    if execution.push(&block.block, context)? == Need::Enough {
                        return Ok(Need::Enough);
                    }
                    rows.push(block);
                }
                reader.remember(read, &rows);
            }
        }
        Ok(Need::More)
    }

    fn check_deadline(&self, reader: &Reader) -> Result<(), QueryError> {
        if instant() > self.deadline {
            return Err(QueryError::Deadline(reader.settings.deadline.0));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "query_service_tests.rs"]
mod tests;
