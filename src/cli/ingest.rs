//! `holdfast ingest TABLE FILE|-`: sends a file's rows in requests of many rows each, several at a time.
//!
//! Invariant: each request is named by its content, so that sending it again, by a retry or by running a killed
//! command again, counts nothing twice; memory does not grow with the file.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use futures::stream::{FuturesUnordered, StreamExt};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use tokio::sync::mpsc;
use xxhash_rust::xxh3::Xxh3;

use super::client::{Client, Server, chain, read_problem, refusal};
use super::cut::{Cut, Cutter, Format, Limits};
use super::failure::{Exit, Failure};
use super::{Outcome, output};
use crate::clock;
use crate::model::units::Millis;

/// Send the rows of a file to a table.
///
/// A command that was killed can be run again: each request is named by a digest of its rows and its place, so what
/// was counted is not counted again. Keep --batch-rows, and --id if you gave one. To count the same file a second
/// time on purpose, give the second load an --id of its own.
#[derive(Debug, Args)]
pub struct Ingest {
    /// The table, as in the configuration.
    table: String,
    /// A CSV file with a header row or an NDJSON file; - reads stdin.
    file: PathBuf,
    /// What the rows are written in [default: by the file's extension, else csv].
    #[arg(long)]
    format: Option<Format>,
    /// Rows in each request.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    batch_rows: u64,
    /// Requests under way at the same time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=64))]
    parallel: u64,
    /// Names the load; loads with different names count the same rows again.
    #[arg(long, default_value = "")]
    id: String,
    /// How long to retry a request while the server is busy or cannot be reached.
    #[arg(long, default_value = "60s")]
    retry_for: Millis,
    #[command(flatten)]
    server: Server,
}

/// Requests end at this size even with fewer rows.
const BATCH_BYTES: usize = 8 << 20;
/// A longer row is taken for a missing quote.
const ROW_BYTES: usize = 16 << 20;
const READ_BYTES: usize = 1 << 20;
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LAST_BACKOFF: Duration = Duration::from_secs(5);
/// A server that never answered is more likely not there than busy.
const NEVER_REACHED: Duration = Duration::from_secs(3);

/// The server's acknowledgement.
#[derive(Debug, Default, Deserialize)]
struct Acknowledged {
    accepted: u64,
    shed: u64,
    duplicate: u64,
    durability: String,
}

/// What came of the whole load.
#[derive(Debug, Default)]
struct Totals {
    accepted: u64,
    shed: u64,
    duplicate: u64,
    durability: String,
}

impl Ingest {
    pub async fn run(self) -> Outcome {
        let client = self.server.connect()?;
        let format = self.format.unwrap_or_else(|| self.format_by_name());
        let (input, bytes) = self.open()?;
        let limits = Limits { rows: self.batch_rows as usize, bytes: BATCH_BYTES, row_bytes: ROW_BYTES };
        let cuts = read_in_thread(input, Cutter::new(format, limits));
        let progress = bar(bytes);
        let started = clock::instant();
        let sender = Sender { client, load: &self, format, progress: progress.clone(), reached: Cell::new(false) };
        let (totals, failure) = sender.send_all(cuts).await;
        let seconds = started.elapsed().as_secs_f64();
        progress.finish_and_clear();
        if failure.is_none() || totals.rows() > 0 {
            output::print(totals.summary(seconds))?;
        }
        match failure {
            Some(failure) => Err(failure),
            None if totals.shed > 0 => {
                let shed = output::grouped(totals.shed);
                Err(Failure::new(Exit::Refused, format!("{shed} rows were shed and not counted")))
            }
            None => Ok(()),
        }
    }

    fn format_by_name(&self) -> Format {
        let extension = self.file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if matches!(extension, "ndjson" | "jsonl" | "json") { Format::Ndjson } else { Format::Csv }
    }

    /// The input, and its length where that is known.
    fn open(&self) -> Result<(Box<dyn Read + Send>, Option<u64>), Failure> {
        if self.file.as_os_str() == "-" {
            return Ok((Box::new(io::stdin()), None));
        }
        let cannot = |error: io::Error| Failure::failed(format!("cannot read {}: {error}", self.file.display()));
        let file = File::open(&self.file).map_err(cannot)?;
        let metadata = file.metadata().map_err(cannot)?;
        if metadata.is_dir() {
            return Err(Failure::failed(format!("{} is a folder", self.file.display())));
        }
        Ok((Box::new(file), metadata.is_file().then_some(metadata.len())))
    }

    /// The `Idempotency-Key` of a request: the load's name, the request's place and its rows.
    fn key(&self, cut: &Cut) -> String {
        let mut digest = Xxh3::new();
        digest.update(&(self.id.len() as u64).to_le_bytes());
        digest.update(self.id.as_bytes());
        digest.update(&cut.index.to_le_bytes());
        digest.update(&cut.body);
        format!("load-{:032x}", digest.digest128())
    }
}

impl Totals {
    fn add(&mut self, acknowledged: Acknowledged) {
        self.accepted += acknowledged.accepted;
        self.shed += acknowledged.shed;
        self.duplicate += acknowledged.duplicate;
        // The weakest is what holds for the load.
        if self.durability.is_empty() || acknowledged.durability == "memory" {
            self.durability = acknowledged.durability;
        }
    }

    fn rows(&self) -> u64 {
        self.accepted + self.shed + self.duplicate
    }

    fn summary(&self, seconds: f64) -> String {
        let rows = self.rows();
        let rate = (rows as f64 / seconds.max(1e-9)) as u64;
        let mut text = format!("{} rows in {seconds:.2} s ({} rows/s)", output::grouped(rows), output::grouped(rate));
        let counts = [("accepted", self.accepted), ("duplicate", self.duplicate), ("shed", self.shed)];
        for (name, count) in counts.into_iter().filter(|(name, count)| *count > 0 || *name == "accepted") {
            text.push_str(&format!(", {} {name}", output::grouped(count)));
        }
        if !self.durability.is_empty() {
            text.push_str(&format!(", durable in {}", self.durability));
        }
        text + "\n"
    }
}

/// Reads and cuts on a thread of its own: the next request is ready when one is acknowledged.
fn read_in_thread(mut input: Box<dyn Read + Send>, mut cutter: Cutter) -> mpsc::Receiver<Result<Cut, Failure>> {
    let (sender, receiver) = mpsc::channel(2);
    std::thread::spawn(move || {
        let failed = |error: &dyn ToString| Err(Failure::failed(error.to_string()));
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = match input.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return sender.blocking_send(failed(&error)).unwrap_or(()),
            };
            match cutter.push(&buffer[..read]) {
                Ok(cuts) => {
                    for cut in cuts {
                        if sender.blocking_send(Ok(cut)).is_err() {
                            return;
                        }
                    }
                }
                Err(error) => return sender.blocking_send(failed(&error)).unwrap_or(()),
            }
        }
        match cutter.finish() {
            Ok(Some(cut)) => sender.blocking_send(Ok(cut)).unwrap_or(()),
            Ok(None) => {}
            Err(error) => sender.blocking_send(failed(&error)).unwrap_or(()),
        }
    });
    receiver
}

fn bar(bytes: Option<u64>) -> ProgressBar {
    let Some(bytes) = bytes.filter(|_| io::stderr().is_terminal()) else {
        return ProgressBar::hidden();
    };
    let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
    let template = "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} left {msg}";
    bar.set_style(ProgressStyle::with_template(template).expect("the template is well-formed"));
    bar
}

/// Sends requests.
struct Sender<'a> {
    client: Client,
    load: &'a Ingest,
    format: Format,
    progress: ProgressBar,
    /// Has the server answered anything?
    reached: Cell<bool>,
}

impl Sender<'_> {
    /// Sends all; stops at the first failure, but waits for what is under way, so that the totals are right.
    async fn send_all(&self, mut cuts: mpsc::Receiver<Result<Cut, Failure>>) -> (Totals, Option<Failure>) {
        let mut totals = Totals::default();
        let mut failure = None;
        let mut under_way = FuturesUnordered::new();
        let mut ended = false;
        loop {
            let room = !ended && failure.is_none() && under_way.len() < self.load.parallel as usize;
            tokio::select! {
                cut = cuts.recv(), if room => match cut {
                    Some(Ok(cut)) => under_way.push(self.send(cut)),
                    Some(Err(error)) => failure = Some(error),
                    None => ended = true,
                },
                Some(outcome) = under_way.next() => match outcome {
                    Ok((acknowledged, bytes)) => {
                        totals.add(acknowledged);
                        self.progress.inc(bytes as u64);
                    }
                    Err(error) => failure = failure.or(Some(error)),
                },
                else => return (totals, failure),
            }
        }
    }

    /// Sends one request until it is acknowledged or refused.
    async fn send(&self, cut: Cut) -> Result<(Acknowledged, usize), Failure> {
        let path = format!("/api/v1/ingest/{}", self.load.table);
        let media = match self.format {
            Format::Csv => "text/csv",
            Format::Ndjson => "application/x-ndjson",
        };
        let key = self.load.key(&cut);
        let started = clock::instant();
        let mut backoff = FIRST_BACKOFF;
        loop {
            let request = (self.client.post(&path))
                .header(CONTENT_TYPE, media)
                .header("Idempotency-Key", &key)
                .body(cut.body.clone());
            let answer = request.send().await;
            self.reached.set(self.reached.get() || answer.is_ok());
            let (pause, failure) = match answer {
                Ok(response) if response.status().is_success() => {
                    match response.json().await {
                        Ok(acknowledged) => return Ok((acknowledged, cut.input_bytes)),
                        // The answer broke off: sending again tells.
                        Err(error) => (backoff, self.client.unreachable(&error)),
                    }
                }
                Ok(response) if is_passing(response.status()) => {
                    let pause = retry_after(&response).unwrap_or(backoff);
                    (pause, refusal(response.status(), &read_problem(response).await))
                }
                Ok(response) => return Err(self.refused(&cut, response).await),
                Err(error) if error.is_builder() => return Err(Failure::failed(chain(&error))),
                Err(error) => (backoff, self.client.unreachable(&error)),
            };
            let retry_for = self.load.retry_for.duration();
            let patience = if self.reached.get() { retry_for } else { retry_for.min(NEVER_REACHED) };
            if started.elapsed() + pause > patience {
                return Err(failure);
            }
            self.progress.set_message(format!("(waiting: {})", failure.message));
            tokio::time::sleep(pause).await;
            self.progress.set_message("");
            backoff = (backoff * 2).min(LAST_BACKOFF);
        }
    }

    /// A refusal for good, with the line of the file that it is about.
    async fn refused(&self, cut: &Cut, response: Response) -> Failure {
        let status = response.status();
        let problem = read_problem(response).await;
        let mut failure = refusal(status, &problem);
        if let Some(line) = problem.line {
            let place = format!("{}:{}", self.load.file.display(), cut.input_line(line));
            let batch = format!(
                "nothing of its request was counted ({} rows from line {}, request {})",
                output::grouped(cut.rows as u64),
                cut.first_line(),
                cut.index + 1
            );
            failure.message = format!("{place}: {}\n{batch}", problem.row_fault());
        }
        failure
    }
}

/// Will the same request succeed later?
fn is_passing(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::REQUEST_TIMEOUT || status.is_server_error()
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LAST_BACKOFF))
}
