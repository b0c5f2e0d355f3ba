//! `holdfast bench stages`: what each step between a CSV byte and a stored block costs alone, on one core, over the same rows.
//!
//! Invariant: the steps are the product's own functions on durable tiers, embedded ones or the services of a configuration; only
//! the actors between them are missing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use futures::future::try_join_all;

use super::machine;
use super::orders::{self, Random};
use super::stats::{Runs, short};
use crate::clock;
use crate::config::{Layers, Loaded, Source};
use crate::gate::row_reader::{Format, RowReader};
use crate::gate::scatter::{Limits, Part};
use crate::hot::embedded::EmbeddedHot;
use crate::kv::embedded::EmbeddedKv;
use crate::kv::{Append, ChunkRead, Kv};
use crate::model::applied::Applied;
use crate::model::batch::{Batch, BatchHeader, Chunk};
use crate::model::block::StoredBlock;
use crate::model::catalog::Catalog;
use crate::model::id::{PartitionId, SourceId, Tip};
use crate::model::position::{Position, Span};
use crate::model::rows::{Compression, decode_rows, encode_rows};
use crate::mq::Mq;
use crate::mq::embedded::EmbeddedMq;
use crate::node::external::{Externals, Ground};
use crate::slave::fold::Fold;
use crate::tier::{Sink, SinkWrite};

const PARTITIONS: u16 = 64;
const ROWS_A_REQUEST: u64 = 100_000;
const SLICE: usize = 256 << 10;
const PAGE_CACHE: usize = 64 << 20;
const LIMITS: Limits = Limits { row_bytes: 1 << 20, rows: u64::MAX, decoded_bytes: usize::MAX };

/// The names of the steps, in the order of the flow.
const STEPS: [&str; 11] = [
    "parse and spread over partitions",
    "encode (Arrow IPC, LZ4)",
    "mq append, durable",
    "kv append, one chunk after another",
    "kv read, all chunks again",
    "decode",
    "fold, every second row a new group",
    "fold, all groups known",
    "encode blocks",
    "hot write",
    "fold alone: one partition, large batches",
];

const HOT: usize = 9;
const READ_BYTES: usize = 4 << 20;

/// Rows of one batch where the fold is measured alone: what one chunk may hold.
const ROWS_OF_A_CHUNK: u64 = 100_000;

/// A catalog of the measured load's definitions.
pub fn catalog() -> Result<Catalog> {
    let source = Source { file: "bench.toml".into(), text: orders::DEFINITION.into() };
    let loaded = Loaded::new(Layers::new(Some(source), [])).map_err(|error| anyhow!("{error}"))?;
    Ok(loaded.catalog)
}

/// What the steps work on.
struct Tiers {
    mq: Arc<dyn Mq>,
    kv: Arc<dyn Kv>,
    hot: Arc<dyn Sink>,
    _folder: Option<tempfile::TempDir>,
}

impl Tiers {
    fn embedded() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        Ok(Self {
            mq: Arc::new(EmbeddedMq::open(&folder.path().join("mq"), PARTITIONS, PAGE_CACHE)?),
            kv: Arc::new(EmbeddedKv::open(&folder.path().join("kv"), PARTITIONS, PAGE_CACHE)?),
            hot: Arc::new(EmbeddedHot::open(&folder.path().join("hot"), PARTITIONS, PAGE_CACHE)?),
            _folder: Some(folder),
        })
    }

    /// Those of a configuration that are services, beside embedded ones.
    async fn services(file: &Path) -> Result<Self> {
        let source = Source::read(file)?;
        let text = format!("{}\n{}", source.text, orders::DEFINITION);
        let loaded = Loaded::new(Layers::new(Some(Source { text, ..source }), []))?;
        ensure!(loaded.config.cluster.partitions == PARTITIONS, "[cluster] partitions must be {PARTITIONS}");
        let Loaded { config, catalog, folder } = &loaded;
        let services = Externals::open(&Ground { config, catalog, secrets: folder, clock: &clock::Clock::System })?;
        services.check().await?;
        let embedded = Self::embedded()?;
        Ok(Self {
            mq: services.mq.map_or(embedded.mq, |mq| mq),
            kv: services.kv.map_or(embedded.kv, |kv| kv),
            hot: services.hot.map_or(embedded.hot, |hot| hot),
            ..embedded
        })
    }
}

/// Runs every step over `rows` rows, `runs` times; on the services of the configuration `file`, if there is one.
pub async fn stages(rows: u64, runs: u32, file: Option<PathBuf>) -> Result<()> {
    println!("{}", machine::describe());
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); STEPS.len()];
    let mut written = 0;
    for _ in 0..runs {
        let tiers = match &file {
            Some(file) => Tiers::services(file).await?,
            None => Tiers::embedded()?,
        };
        machine::wait_until_idle().await;
        let (taken, blocks) = run(&tiers, rows).await?;
        written = blocks;
        for (step, taken) in taken.into_iter().enumerate() {
            times[step].push(taken.as_secs_f64() * 1e9 / rows as f64);
        }
    }
    println!("{} rows, {} merchants x 4 channels x 24 hours, one core", short(rows as f64), orders::MERCHANTS);
    println!("{:<42} {:>28} {:>16}", "step", "ns a row", "rows/s");
    for (name, times) in STEPS.iter().zip(&times) {
        let runs = Runs::new(times.clone());
        println!("{name:<42} {:>28} {:>16}", runs.to_string(), short(1e9 / runs.median()));
    }
    let seconds = Runs::new(times[HOT].clone()).median() * rows as f64 / 1e9;
    println!("hot took {} metric rows, {} a second", short(written as f64), short(written as f64 / seconds));
    Ok(())
}

fn batch(part: &Part, from: &mut [u64], body: Bytes, fingerprint: u64) -> Batch {
    let rows = part.rows.num_rows();
    let start = Position::ZERO.plus(from[part.partition.0 as usize]);
    from[part.partition.0 as usize] += rows as u64;
    let header = BatchHeader {
        source: SourceId::push("orders", 1),
        span: Span::new(start, start.plus(rows as u64)),
        table: "orders".into(),
        schema: fingerprint,
        rows: rows as u32,
        weighted: false,
        positioned: false,
        at_ms: 0,
        hours: part.hours,
    };
    Batch { header, body }
}

/// What each step took, and how many metric rows went to hot.
async fn run(tiers: &Tiers, rows: u64) -> Result<([Duration; STEPS.len()], usize)> {
    let Tiers { mq, kv, hot, .. } = tiers;
    let catalog = catalog()?;
    let table = catalog.table("orders").context("the table was just defined")?.clone();
    let mut folds: Vec<Fold> = (0..PARTITIONS).map(|_| Fold::new(&catalog)).collect();
    // Services hold what earlier runs wrote: this one stands above it.
    let partitions = || (0..PARTITIONS).map(PartitionId);
    let mut begun: Vec<Tip> =
        try_join_all(partitions().map(|it| kv.head(it))).await?.into_iter().map(|head| head.tip).collect();
    let epoch = begun.iter().map(|tip| tip.epoch).max().unwrap_or_default() + 1;
    let mut tips = begun.clone();
    let mut positions = vec![0; PARTITIONS as usize];
    let mut applied = vec![Applied::default(); PARTITIONS as usize];
    let mut taken = [Duration::ZERO; STEPS.len()];
    let mut random = Random::new(1);
    let mut text = String::new();
    for first in (0..rows).step_by(ROWS_A_REQUEST as usize) {
        text.clear();
        text.push_str(orders::HEADER);
        orders::append_rows(&mut text, &mut random, first, ROWS_A_REQUEST.min(rows - first), rows, 0);

        let start = clock::instant();
        let mut reader = RowReader::new(Format::Csv, table.clone(), PARTITIONS, LIMITS);
        text.as_bytes().chunks(SLICE).try_for_each(|slice| reader.feed(slice))?;
        let parsed = reader.finish()?;
        taken[0] += start.elapsed();

        let start = clock::instant();
        let bodies: Vec<Bytes> =
            parsed.parts.iter().map(|part| encode_rows(&part.rows, Compression::Lz4).into()).collect();
        taken[1] += start.elapsed();

        let batches: Vec<(PartitionId, Batch)> = (parsed.parts.iter().zip(bodies))
            .map(|(part, body)| (part.partition, batch(part, &mut positions, body, table.fingerprint)))
            .collect();
        let start = clock::instant();
        try_join_all(batches.iter().map(|(partition, batch)| mq.publish(*partition, batch.clone()))).await?;
        taken[2] += start.elapsed();

        let start = clock::instant();
        for (partition, batch) in &batches {
            let index = partition.0 as usize;
            let id = Tip::new(epoch, tips[index].number + 1);
            applied[index].add(&batch.header.source, batch.header.span, 0);
            let chunk = Chunk { id, previous: tips[index], at_ms: 0, batches: vec![batch.clone()] };
            let delta = applied[index].delta([&batch.header.source]);
            kv.append(*partition, Append { chunk, offset: 1, applied: delta, forget: vec![] }).await?;
            tips[index] = id;
        }
        taken[3] += start.elapsed();

        let start = clock::instant();
        for partition in partitions() {
            let after = &mut begun[partition.0 as usize];
            while let ChunkRead::Next(chunks) = kv.chunks(partition, *after, READ_BYTES).await? {
                let Some(last) = chunks.last() else { break };
                *after = last.id;
            }
        }
        taken[4] += start.elapsed();

        let start = clock::instant();
        let decoded = (batches.iter())
            .map(|(partition, batch)| Ok((*partition, decode_rows(&table.schema, &batch.body)?)))
            .collect::<Result<Vec<_>>>()?;
        taken[5] += start.elapsed();

        let start = clock::instant();
        for (partition, rows) in &decoded {
            folds[partition.0 as usize].apply(&table, rows, None)?;
        }
        taken[6] += start.elapsed();

        let start = clock::instant();
        for (partition, rows) in &decoded {
            folds[partition.0 as usize].apply(&table, rows, None)?;
        }
        taken[7] += start.elapsed();
    }
    let mut metric_rows = 0;
    for (index, fold) in folds.iter_mut().enumerate() {
        let partition = PartitionId(index as u16);
        let tip = hot.standing(partition).await?.tip;
        let start = clock::instant();
        let names = fold.settle();
        let version = Tip::new(tip.epoch + 1, 1);
        let blocks: Vec<_> = (fold.encode(&names).into_iter().zip(&names))
            .filter_map(|(rows, name)| Some((name.clone(), StoredBlock { version, rows: rows? })))
            .collect();
        taken[8] += start.elapsed();
        metric_rows += fold.rows();
        let start = clock::instant();
        let write = SinkWrite { expect: tip, tip: version, blocks, ..SinkWrite::default() };
        hot.write(partition, write).await?;
        taken[HOT] += start.elapsed();
    }
    taken[10] = fold_alone(&catalog, rows)?;
    Ok((taken, metric_rows))
}

/// The fold over one partition's rows of one day in batches as large as a chunk, once all groups are known.
fn fold_alone(catalog: &Catalog, rows: u64) -> Result<Duration> {
    let table = catalog.table("orders").context("the table was just defined")?.clone();
    let mut random = Random::new(1);
    let mut text = orders::HEADER.to_owned();
    let of_all = ROWS_OF_A_CHUNK * u64::from(PARTITIONS);
    orders::append_rows(&mut text, &mut random, 0, of_all, of_all, 0);
    let mut reader = RowReader::new(Format::Csv, table.clone(), PARTITIONS, LIMITS);
    reader.feed(text.as_bytes())?;
    let parsed = reader.finish()?;
    let part = parsed.parts.first().context("a partition has rows")?;
    let mut fold = Fold::new(catalog);
    fold.apply(&table, &part.rows, None)?;
    let times = rows.div_ceil(part.rows.num_rows() as u64);
    let start = clock::instant();
    for _ in 0..times {
        fold.apply(&table, &part.rows, None)?;
    }
    Ok(start.elapsed().mul_f64(rows as f64 / (times * part.rows.num_rows() as u64) as f64))
}
