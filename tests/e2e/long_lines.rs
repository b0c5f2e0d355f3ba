//! A line of 1 GiB: refused early, in bounded memory, by the server and by the command.
//!
//! Invariant: the test itself never holds more than a chunk of it.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::client::{CSV, NDJSON};
use crate::sandbox::{BINARY, Sandbox, run_bounded};
use crate::shop;

const LINE: u64 = 1 << 30;
const CHUNK: usize = 64 << 10;
const SERVER_PEAK: u64 = 300 << 20;

/// Streams `head` and then one endless line, while another thread reads the answer. Returns the answer's status (0 if the
/// connection was reset before it could be read) and how much was sent.
fn stream_line(port_of: &str, content_type: &str, length: &str, head: &str) -> (u16, u64) {
    let mut socket = TcpStream::connect(port_of.trim_start_matches("http://")).expect("the server listens");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    socket.set_write_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let chunked = length.starts_with("transfer-encoding");
    let request =
        format!("POST /api/v1/ingest/orders HTTP/1.1\r\nhost: x\r\ncontent-type: {content_type}\r\n{length}\r\n\r\n");
    socket.write_all(request.as_bytes()).expect("the server reads");
    let mut reader = socket.try_clone().expect("a second handle");
    let answered = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| {
            let mut bytes = [0; 4096];
            let count = reader.read(&mut bytes);
            answered.store(true, Ordering::Relaxed);
            let text = String::from_utf8_lossy(&bytes[..count.unwrap_or(0)]).into_owned();
            text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
        });
        let mut sent = 0;
        let mut send = |bytes: &[u8]| {
            let result = if chunked {
                write!(socket, "{:x}\r\n", bytes.len())
                    .and_then(|()| socket.write_all(bytes))
                    .and_then(|()| socket.write_all(b"\r\n"))
            } else {
                socket.write_all(bytes)
            };
            sent += bytes.len() as u64;
            match result {
                Ok(()) => true,
                Err(error) => {
                    assert_ne!(error.kind(), ErrorKind::WouldBlock, "the server neither reads nor answers");
                    false
                }
            }
        };
        let chunk = vec![b'7'; CHUNK];
        if send(head.as_bytes()) {
            for _ in 0..LINE / CHUNK as u64 {
                if answered.load(Ordering::Relaxed) || !send(&chunk) {
                    break;
                }
            }
        }
        // A peer that is done writing, as one that was refused would be.
        let _ = socket.shutdown(std::net::Shutdown::Write);
        (answer.join().expect("the reader ends"), sent)
    })
}

#[test]
fn a_line_of_a_gibibyte_is_refused_early_and_memory_stays_bounded() {
    let sandbox = Sandbox::new(&shop::config());
    let mut running = sandbox.start();
    let fixed = format!("content-length: {}", LINE + 100_000);
    let good = "{\"order_id\":1,\"merchant_id\":1,\"status\":\"paid\",\"paid_at\":\"2026-03-27T10:00:00Z\"}\n";
    let csv = shop::ORDERS_HEADER.to_owned() + "1,1,paid,web,1.00,7,2026-03-27T10:00:00Z\n";
    let cases = [
        ("CSV, one field", CSV, format!("{csv}2,1,")),
        ("CSV, in quotes", CSV, format!("{csv}2,1,\"")),
        ("CSV, the header", CSV, "order_id,".to_owned()),
        ("NDJSON, a text", NDJSON, format!("{good}{{\"order_id\":2,\"merchant_id\":1,\"status\":\"")),
        ("NDJSON, a number", NDJSON, format!("{good}{{\"order_id\":")),
    ];
    for length in ["transfer-encoding: chunked", &fixed] {
        for (what, content_type, head) in &cases {
            let (status, sent) = stream_line(&sandbox.url(), content_type, length, head);
            println!("{what}, {length}: {status} after {} KiB", sent >> 10);
            assert!([413, 422].contains(&status), "{what}, {length}: status {status} after {sent} bytes");
            assert!(sent < LINE / 2, "{what}, {length}: {sent} bytes were taken before the refusal");
        }
    }
    let peak = running.peak_bytes();
    assert!(peak < SERVER_PEAK, "{} MiB", peak >> 20);
    assert!(running.is_alive());
    assert_eq!(running.client.settled_number("select sum(orders) from placed_day"), 0, "nothing half-counted");
}

#[test]
fn a_file_of_one_line_is_refused_by_the_command_in_bounded_memory() {
    let sandbox = Sandbox::new(&shop::config());
    let running = sandbox.start();
    for (name, start) in [("long.csv", shop::ORDERS_HEADER), ("long.ndjson", "{\"order_id\":")] {
        let path = sandbox.path(name);
        let mut file = File::create(&path).expect("a file");
        file.write_all(start.as_bytes()).expect("writing");
        // Sparse: a gibibyte of zero bytes that take no room.
        file.set_len(LINE).expect("a long file");
        let mut command = Command::new(BINARY);
        command.args(["ingest", "orders"]).arg(&path).env("HOLDFAST_SERVER", sandbox.url());
        let finished = run_bounded(command, Duration::from_secs(60));
        println!("{name}: {} MiB, {}", finished.peak_bytes >> 20, finished.stderr().trim());
        assert_eq!(finished.code(), 1, "{name}: {}", finished.stderr());
        let line = if name.ends_with("csv") { "line 2" } else { "line 1" };
        assert!(finished.stderr().contains(line), "{name}: {}", finished.stderr());
        assert!(finished.peak_bytes < SERVER_PEAK, "{name}: {} MiB", finished.peak_bytes >> 20);
    }
    assert!(running.peak_bytes() < SERVER_PEAK);
    assert_eq!(running.client.settled_number("select sum(orders) from placed_day"), 0, "nothing half-counted");
}
