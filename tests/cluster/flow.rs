//! Rows that flow and questions that are asked while things happen.
//!
//! Invariant: every batch is repeated with its key until it is acknowledged; every answer that says exact holds all that was
//! acknowledged up to its `as_of`, and no more than was sent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::{Client, now_ms};
use crate::truth::{Batch, ROWS};

/// Between two batches: rows come in all the time, and a slow machine has time for the rest.
const PAUSE: Duration = Duration::from_millis(15);
/// Between two attempts, as a careful client does.
const RETRY: Duration = Duration::from_millis(50);
const GIVES_UP: Duration = Duration::from_secs(30);

/// When each batch was begun and acknowledged.
#[derive(Default)]
struct Progress {
    begun: u64,
    acknowledged: Vec<i64>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// The next batch that was not sent.
    pub next: u64,
    pub most_attempts: u32,
    pub slowest: Duration,
    pub errors: Vec<String>,
    /// Answers that said exact.
    pub exact: u64,
    /// The oldest that the newest exact answer ever was.
    pub oldest: Duration,
}

pub struct Flow {
    stop: Arc<AtomicBool>,
    writer: JoinHandle<Report>,
    reader: JoinHandle<Report>,
}

impl Flow {
    /// Batches from `first` on, to the gates in turn; questions to the query nodes in turn. Ports.
    pub fn start(first: u64, gates: Vec<u16>, queries: Vec<u16>) -> Self {
        let (stop, progress) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Progress::default())));
        let (ended, shared) = (stop.clone(), progress.clone());
        let writer = std::thread::spawn(move || write(first, &gates, &ended, &shared));
        let ended = stop.clone();
        let reader = std::thread::spawn(move || read(first, &queries, &ended, &progress));
        Self { stop, writer, reader }
    }

    pub fn end(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let written = self.writer.join().expect("the writer has no panic");
        let read = self.reader.join().expect("the reader has no panic");
        Report { exact: read.exact, oldest: read.oldest, ..written }
    }
}

fn write(first: u64, gates: &[u16], stop: &AtomicBool, progress: &Mutex<Progress>) -> Report {
    let client = Client::new();
    let mut report = Report { next: first, ..Report::default() };
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        let batch = Batch(report.next);
        progress.lock().expect("no panic").begun = report.next - first + 1;
        let begun = Instant::now();
        let mut attempts = 0;
        loop {
            attempts += 1;
            turn += 1;
            match client.ingest(gates[turn % gates.len()], &batch) {
                Ok((accepted, known)) => {
                    assert_eq!(accepted + known, ROWS, "{batch:?}");
                    break;
                }
                Err(error) => report.errors.push(error),
            }
            assert!(begun.elapsed() < GIVES_UP, "{batch:?} is not taken: {:?}", report.errors.last());
            std::thread::sleep(RETRY);
        }
        progress.lock().expect("no panic").acknowledged.push(now_ms());
        report.next += 1;
        report.most_attempts = report.most_attempts.max(attempts);
        report.slowest = report.slowest.max(begun.elapsed());
        std::thread::sleep(PAUSE);
    }
    report
}

fn read(first: u64, queries: &[u16], stop: &AtomicBool, progress: &Mutex<Progress>) -> Report {
    let client = Client::new();
    let mut report = Report::default();
    let begun_ms = now_ms();
    let (mut newest_ms, mut turn) = (begun_ms, 0);
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let answer = client.query(queries[turn % queries.len()]);
        if let Some(answer) = answer.ok().filter(|answer| answer.exact) {
            report.exact += 1;
            newest_ms = newest_ms.max(answer.as_of_ms);
            let (held, progress) = (answer.orders(), progress.lock().expect("no panic"));
            let before = progress.acknowledged.iter().filter(|at_ms| **at_ms < answer.as_of_ms).count() as u64;
            // What came before the flow was acknowledged some time before it.
            let least = if answer.as_of_ms < begun_ms { 0 } else { (first + before) * ROWS };
            let most = (first + progress.begun) * ROWS;
            let as_of_ms = answer.as_of_ms;
            assert!((least..=most).contains(&held), "exact as of {as_of_ms}: {held} orders; {least}..={most} would be");
        }
        report.oldest = report.oldest.max(Duration::from_millis(now_ms().abs_diff(newest_ms)));
        std::thread::sleep(PAUSE);
    }
    report
}
