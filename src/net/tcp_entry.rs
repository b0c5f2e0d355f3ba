//! The start of a connection, on both sides: the handshake, then the hellos, within a time and with bounded bytes.
//!
//! Invariant: until the peer has proved that it knows the secret, nothing but the handshake's own messages is read.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::frame::{self, Decoder, Frame, FrameError, FrameKind};
use super::handshake::{Credentials, Dialer, HandshakeError, Listener, Nonce};
use super::hello::{Hello, Limits, Peer};
use super::lane::MOST_HEAD_BYTES;
use super::link::Identity;
use super::settings::Settings;
use super::stream_state::{cut, printable};
use crate::model::codec;

/// Bytes in both directions: a socket, TLS over one, or a pipe in memory.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

pub type Writer = WriteHalf<Box<dyn Io>>;

/// Why a connection did not begin.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EntryError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// We do not take the peer.
    #[error("{0}")]
    Unfit(String),
    /// The peer does not take us.
    #[error("refused by the peer: {0}")]
    Refused(String),
    #[error("too many peers are connected (`[net] connections`)")]
    Full,
    #[error("it did not finish the handshake in time")]
    Late,
    #[error("it sent something else than the handshake")]
    OutOfTurn,
    #[error("{0}")]
    Io(String),
}

impl EntryError {
    /// The sort of reason, of which there are few: what is logged once.
    pub fn sort(&self) -> &'static str {
        match self {
            Self::Frame(FrameError::Foreign) => "foreign",
            Self::Frame(FrameError::Version { .. }) => "version",
            Self::Frame(FrameError::Oversized { .. }) => "oversized",
            Self::Frame(FrameError::Kind | FrameError::Checksum) => "damaged",
            Self::Handshake(HandshakeError::Malformed) => "malformed",
            Self::Handshake(HandshakeError::Cluster) => "cluster",
            Self::Handshake(HandshakeError::Proof | HandshakeError::Reflection) => "secret",
            Self::Unfit(_) => "unfit",
            Self::Refused(_) => "refused",
            Self::Full => "full",
            Self::Late => "late",
            Self::OutOfTurn => "out of turn",
            Self::Io(_) => "io",
        }
    }
}

/// Reads frames.
pub struct FrameReader {
    io: ReadHalf<Box<dyn Io>>,
    buffer: BytesMut,
    decoder: Decoder,
}

const STRANGERS_BUFFER_BYTES: usize = 2 << 10;
const PEERS_BUFFER_BYTES: usize = 64 << 10;

impl FrameReader {
    /// The next frame; `None` if nothing came for so long.
    pub async fn next(&mut self, silence: Duration) -> Result<Option<Frame>, EntryError> {
        loop {
            let mut input = &self.buffer[..];
            let frame = self.decoder.decode(&mut input)?;
            let used = self.buffer.len() - input.len();
            self.buffer.advance(used);
            if frame.is_some() {
                return Ok(frame);
            }
            self.buffer.clear();
            match timeout(silence, self.io.read_buf(&mut self.buffer)).await {
                Err(_) => return Ok(None),
                Ok(Ok(0)) => return Err(EntryError::Io("the peer closed the connection".into())),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(EntryError::Io(error.to_string())),
            }
        }
    }

    fn trust(&mut self, most_body: usize) {
        self.decoder.set_limit(most_body);
        self.buffer.reserve(PEERS_BUFFER_BYTES);
    }
}

pub struct Halves {
    pub reader: FrameReader,
    pub writer: Writer,
}

/// A connection that has begun.
pub struct Entered {
    pub peer: Arc<Peer>,
    pub limits: Limits,
    pub peer_limits: Limits,
    pub is_dialer: bool,
}

/// What a node brings to every connection.
pub struct Entry {
    pub identity: Identity,
    pub limits: Limits,
    handshake_bytes: usize,
    pub handshake_timeout: Duration,
}

/// A hello holds the names of roles and keys, and addresses; it has more room than a piece may have.
const HELLO_BYTES: usize = 64 << 10;

impl Entry {
    pub fn new(identity: Identity, settings: &Settings) -> Self {
        Self {
            limits: Limits::from(settings),
            handshake_bytes: settings.handshake_bytes.bytes(),
            handshake_timeout: settings.handshake_timeout.duration(),
            identity,
        }
    }

    pub async fn dial(&self, io: Box<dyn Io>, binding: Vec<u8>) -> Result<(Entered, Halves), EntryError> {
        let mut exchange = self.exchange(io);
        let begun = self.within(async {
            let nonce = nonce()?;
            let (dialer, first) = Dialer::start(self.credentials(binding), nonce);
            exchange.say(FrameKind::Prove, &first).await?;
            let (dialer, proof) = dialer.challenged(&exchange.hear(FrameKind::Prove).await?)?;
            exchange.say(FrameKind::Prove, &proof).await?;
            let name = dialer.proved(&exchange.hear(FrameKind::Prove).await?)?;
            exchange.trust(self.most_body());
            let hello = self.hello();
            exchange.say(FrameKind::Hello, &codec::to_bytes(&hello)).await?;
            exchange.hear_hello(&hello, &name).await
        });
        let theirs = begun.await?;
        Ok(exchange.enter(self.limits, theirs, true))
    }

    /// `admit` has the last word on a peer that is fit. What is refused has been told to the peer, if it can be told.
    pub async fn accept<T>(
        &self,
        io: Box<dyn Io>,
        binding: Vec<u8>,
        admit: impl FnOnce() -> Option<T>,
    ) -> Result<(Entered, Halves, T), EntryError> {
        let mut exchange = self.exchange(io);
        let begun = self.within(async {
            let first = exchange.hear(FrameKind::Prove).await?;
            let (listener, challenge) = Listener::start(self.credentials(binding), nonce()?, &first)?;
            exchange.say(FrameKind::Prove, &challenge).await?;
            let (name, proof) = listener.proved(&exchange.hear(FrameKind::Prove).await?)?;
            exchange.say(FrameKind::Prove, &proof).await?;
            exchange.trust(self.most_body());
            let hello = self.hello();
            let theirs = exchange.hear_hello(&hello, &name).await?;
            let admitted = admit().ok_or(EntryError::Full)?;
            exchange.say(FrameKind::Hello, &codec::to_bytes(&hello)).await?;
            Ok((theirs, admitted))
        });
        match begun.await {
            Ok((theirs, admitted)) => {
                let (entered, halves) = exchange.enter(self.limits, theirs, false);
                Ok((entered, halves, admitted))
            }
            Err(error) => {
                // Bounded, and its outcome changes nothing.
                let _ = timeout(REFUSAL, exchange.refuse(&error)).await;
                Err(error)
            }
        }
    }

    async fn within<T>(&self, exchange: impl Future<Output = Result<T, EntryError>>) -> Result<T, EntryError> {
        timeout(self.handshake_timeout, exchange).await.unwrap_or(Err(EntryError::Late))
    }

    fn exchange(&self, io: Box<dyn Io>) -> Exchange {
        let (io, writer) = tokio::io::split(io);
        let buffer = BytesMut::with_capacity(STRANGERS_BUFFER_BYTES);
        let reader = FrameReader { io, buffer, decoder: Decoder::new(self.handshake_bytes) };
        Exchange { halves: Halves { reader, writer }, silence: self.handshake_timeout }
    }

    fn credentials(&self, binding: Vec<u8>) -> Credentials {
        let Identity { cluster, secret, me, .. } = &self.identity;
        Credentials { cluster: cluster.clone(), node: me.name.clone(), secret: secret.clone(), binding }
    }

    fn hello(&self) -> Hello {
        let Identity { agreed, me, .. } = &self.identity;
        Hello { peer: me.clone(), agreed: agreed.clone(), limits: self.limits }
    }

    fn most_body(&self) -> usize {
        (self.limits.piece as usize + MOST_HEAD_BYTES).max(HELLO_BYTES)
    }
}

/// How long telling a refused peer may take.
const REFUSAL: Duration = Duration::from_millis(200);

fn nonce() -> Result<Nonce, EntryError> {
    let mut nonce = Nonce::default();
    getrandom::fill(&mut nonce).map_err(|error| EntryError::Io(format!("no randomness: {error}")))?;
    Ok(nonce)
}

/// A connection that has not begun yet.
struct Exchange {
    halves: Halves,
    silence: Duration,
}

impl Exchange {
    async fn say(&mut self, kind: FrameKind, body: &[u8]) -> Result<(), EntryError> {
        let mut out = BytesMut::new();
        frame::encode(kind, &[body], &mut out);
        let writer = &mut self.halves.writer;
        let written = async {
            writer.write_all(&out).await?;
            writer.flush().await
        };
        written.await.map_err(|error| EntryError::Io(error.to_string()))
    }

    async fn hear(&mut self, expected: FrameKind) -> Result<Bytes, EntryError> {
        match self.halves.reader.next(self.silence).await? {
            None => Err(EntryError::Late),
            Some(frame) if frame.kind == expected => Ok(frame.body),
            Some(frame) if frame.kind == FrameKind::Refuse => Err(EntryError::Refused(printable(&frame.body))),
            Some(_) => Err(EntryError::OutOfTurn),
        }
    }

    async fn hear_hello(&mut self, ours: &Hello, name: &str) -> Result<Hello, EntryError> {
        let body = self.hear(FrameKind::Hello).await?;
        let theirs =
            codec::from_bytes::<Hello>("hello", &body).map_err(|error| EntryError::Unfit(error.to_string()))?;
        match ours.refuses(&theirs, name) {
            Some(reason) => Err(EntryError::Unfit(reason)),
            None => Ok(theirs),
        }
    }

    fn trust(&mut self, most_body: usize) {
        self.halves.reader.trust(most_body);
    }

    async fn refuse(&mut self, error: &EntryError) -> Result<(), EntryError> {
        if matches!(error, EntryError::Io(_) | EntryError::Refused(_)) {
            return Ok(());
        }
        self.say(FrameKind::Refuse, cut(&error.to_string()).as_bytes()).await?;
        let _ = self.halves.writer.shutdown().await;
        // Closing a socket with bytes unread would take the refusal back before it is read.
        let mut rest = [0; 1 << 10];
        while self.halves.reader.io.read(&mut rest).await.is_ok_and(|read| read > 0) {}
        Ok(())
    }

    fn enter(self, limits: Limits, theirs: Hello, is_dialer: bool) -> (Entered, Halves) {
        let Hello { peer, limits: peer_limits, .. } = theirs;
        (Entered { peer: Arc::new(peer), limits, peer_limits, is_dialer }, self.halves)
    }
}
