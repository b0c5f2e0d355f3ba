//! A small HTTP/1.1 load client: keep-alive connections that send one prepared request after another.
//!
//! Invariant: the same client measures everything that is compared, and every response's status is checked.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::clock;

/// What a load gave: requests a second and each request's time.
#[derive(Debug)]
pub struct Load {
    pub per_second: f64,
    /// Sorted, microseconds.
    pub times_us: Vec<f64>,
}

/// A POST of `body` to `path` as bytes on the wire.
pub fn post(path: &str, body: &str) -> Vec<u8> {
    let len = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Sends `requests` in turn over `connections` connections for `duration`.
pub async fn load(at: SocketAddr, requests: &[Vec<u8>], connections: usize, duration: Duration) -> Result<Load> {
    let start = clock::instant();
    let workers = (0..connections).map(|worker| drive(at, requests, worker, duration));
    let mut times_us: Vec<f64> = futures::future::try_join_all(workers).await?.concat();
    let seconds = start.elapsed().as_secs_f64();
    times_us.sort_by(f64::total_cmp);
    Ok(Load { per_second: times_us.len() as f64 / seconds, times_us })
}

async fn drive(at: SocketAddr, requests: &[Vec<u8>], worker: usize, duration: Duration) -> Result<Vec<f64>> {
    let mut stream = TcpStream::connect(at).await.context("connecting")?;
    stream.set_nodelay(true)?;
    let (mut times, mut buffer) = (Vec::new(), Vec::with_capacity(64 << 10));
    let start = clock::instant();
    for request in requests.iter().cycle().skip(worker * 31 % requests.len().max(1)) {
        let sent = clock::instant();
        if sent.duration_since(start) >= duration {
            break;
        }
        stream.write_all(request).await?;
        read_response(&mut stream, &mut buffer).await?;
        times.push(sent.elapsed().as_secs_f64() * 1e6);
    }
    Ok(times)
}

/// Reads one response with a content length; anything but 200 is an error that shows it.
async fn read_response(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<()> {
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            bail!("the server closed the connection");
        }
        let Some(end) = memchr::memmem::find(buffer, b"\r\n\r\n") else { continue };
        let length = content_length(&buffer[..end]).context("a response without content-length")?;
        while buffer.len() < end + 4 + length {
            if stream.read_buf(buffer).await? == 0 {
                bail!("the server closed the connection in a response");
            }
        }
        if !buffer.starts_with(b"HTTP/1.1 200") {
            bail!("unexpected response: {}", String::from_utf8_lossy(buffer));
        }
        return Ok(());
    }
}

fn content_length(head: &[u8]) -> Option<usize> {
    let head = std::str::from_utf8(head).ok()?;
    let line = head.lines().find(|line| line.len() > 15 && line[..15].eq_ignore_ascii_case("content-length:"))?;
    line[15..].trim().parse().ok()
}
