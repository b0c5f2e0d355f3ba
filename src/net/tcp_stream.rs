//! The two ends of a stream, as users hold them.
//!
//! Invariant: a writer that is dropped before `finish` breaks the stream off, so that nobody takes a part for the whole.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;

use super::error::NetError;
use super::stream_state::Half;
use super::streams::{Read, Wrote};
use super::tcp_connection::Connection;

/// Wakes the two ends; each keeps one wake-up for later.
#[derive(Debug, Default)]
pub struct StreamWakers {
    pub readable: Notify,
    pub writable: Notify,
}

impl StreamWakers {
    pub fn wake(&self) {
        self.readable.notify_one();
        self.writable.notify_one();
    }
}

/// What both ends need.
#[derive(Clone)]
struct Side {
    connection: Arc<Connection>,
    id: u64,
    wakers: Arc<StreamWakers>,
}

pub struct StreamWriter {
    side: Side,
}

pub struct StreamReader {
    side: Side,
}

pub fn ends(connection: &Arc<Connection>, id: u64, wakers: &Arc<StreamWakers>) -> (StreamWriter, StreamReader) {
    let side = Side { connection: connection.clone(), id, wakers: wakers.clone() };
    (StreamWriter { side: side.clone() }, StreamReader { side })
}

impl StreamWriter {
    /// Waits while the reader is behind. An item is at most as long as the reader's window.
    pub async fn write(&mut self, item: Bytes) -> Result<(), NetError> {
        loop {
            let peer = self.side.connection.peer_name();
            match self.side.connection.with(|mux| mux.write(self.side.id, &item))? {
                Wrote::Done => return Ok(()),
                Wrote::Wait => self.side.wakers.writable.notified().await,
                Wrote::TooLarge { limit } => return Err(NetError::TooLarge { peer, length: item.len(), limit }),
                Wrote::Broken(reason) => return Err(NetError::Aborted { peer, reason }),
            }
        }
    }

    /// All has been written; the reader sees the end after the last item.
    pub fn finish(self) -> Result<(), NetError> {
        self.side.connection.with(|mux| mux.finish(self.side.id))
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        self.side.connection.let_go(self.side.id, Half::Writing);
    }
}

impl StreamReader {
    /// The next item; `None` at the end. A stream that broke off is an error.
    pub async fn read(&mut self) -> Result<Option<Bytes>, NetError> {
        loop {
            match self.side.connection.read_stream(self.side.id)? {
                Read::Item(item) => return Ok(Some(item)),
                Read::Wait => self.side.wakers.readable.notified().await,
                Read::End => return Ok(None),
                Read::Broken(reason) => {
                    return Err(NetError::Aborted { peer: self.side.connection.peer_name(), reason });
                }
            }
        }
    }
}

impl Drop for StreamReader {
    fn drop(&mut self) {
        self.side.connection.let_go(self.side.id, Half::Reading);
    }
}
