//! A TCP proxy whose links can be cut and slowed.
//!
//! Invariant: bytes pass in their order or the connection ends; it invents and loses none in between.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::cluster::free_port;

/// What happens to bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Weather {
    Fair,
    /// Connections end, and new ones end at once.
    Cut,
    /// Connections stand, and nothing passes.
    Silent,
    /// A little at a time.
    Slow,
}

pub struct Proxy {
    pub port: u16,
    weather: Arc<AtomicU8>,
}

const LOOK: Duration = Duration::from_millis(20);
const SLOW_BYTES: usize = 2_000;

impl Proxy {
    /// To a port on loopback. Its threads end with the test's process.
    pub fn to(target: u16) -> Self {
        let (port, weather) = (free_port(), Arc::new(AtomicU8::new(Weather::Fair as u8)));
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
        let shared = weather.clone();
        std::thread::spawn(move || {
            for inward in listener.incoming().flatten() {
                let outward = TcpStream::connect(("127.0.0.1", target));
                if let (Ok(outward), true) = (outward, shared.load(Ordering::Relaxed) != Weather::Cut as u8) {
                    join(&inward, &outward, &shared);
                }
            }
        });
        Self { port, weather }
    }

    pub fn set(&self, weather: Weather) {
        self.weather.store(weather as u8, Ordering::Relaxed);
    }
}

fn join(inward: &TcpStream, outward: &TcpStream, weather: &Arc<AtomicU8>) {
    for (from, to) in [(inward, outward), (outward, inward)] {
        let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { return };
        let weather = weather.clone();
        std::thread::spawn(move || {
            pass(&from, &to, &weather);
            // Either may have ended by itself.
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
}

fn pass(mut from: &TcpStream, mut to: &TcpStream, weather: &AtomicU8) {
    if from.set_read_timeout(Some(LOOK)).and(to.set_nodelay(true)).is_err() {
        return;
    }
    let mut buffer = [0; 64 << 10];
    loop {
        let now = weather.load(Ordering::Relaxed);
        let most = if now == Weather::Slow as u8 { SLOW_BYTES } else { buffer.len() };
        if now == Weather::Cut as u8 {
            return;
        }
        if now == Weather::Silent as u8 || now == Weather::Slow as u8 {
            std::thread::sleep(LOOK);
        }
        if now == Weather::Silent as u8 {
            continue;
        }
        match from.read(&mut buffer[..most]) {
            Ok(0) => return,
            Ok(read) if to.write_all(&buffer[..read]).is_ok() => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Ok(_) | Err(_) => return,
        }
    }
}
