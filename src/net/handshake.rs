//! Two nodes prove to each other that they know the cluster's secret, before anything else is read. Pure: nonces and
//! messages come in, messages go out.
//!
//! ```text
//! dialer                                     listener
//!   nonce, cluster, name           ──────▶
//!                                  ◀──────   nonce, name
//!   HMAC(secret, "dialer" + all)   ──────▶                      the dialer proves first: who only
//!                                  ◀──────   HMAC(secret, "listener" + all)       knocks learns nothing
//! ```
//!
//! *All* is the protocol version, the cluster's name, both names, both nonces and, under TLS, what binds the proof to
//! this TLS session. The role within the HMAC makes a proof that is sent back to its maker worthless.
//!
//! A link without TLS is authenticated here, at its start, and not after: who can change packets between two nodes can
//! take the link over. Networks where that is to be feared need TLS, which protects every byte.
//!
//! Invariant: the peer's words are used only after its proof was compared, in constant time, with what it must be.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use thiserror::Error;

use super::frame::VERSION;

pub const NONCE_BYTES: usize = 32;
const PROOF_BYTES: usize = 32;
/// Of a node's or a cluster's name.
pub const MOST_NAME_BYTES: usize = 128;

/// Can a node or cluster be called this? Names are logged.
pub fn is_name(name: &str) -> bool {
    (1..=MOST_NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// Unpredictable and never used twice.
pub type Nonce = [u8; NONCE_BYTES];

/// What a node needs to prove itself.
#[derive(Clone)]
pub struct Credentials {
    pub cluster: String,
    pub node: String,
    /// Empty on a loopback without a secret: the same exchange, which then proves nothing.
    pub secret: Vec<u8>,
    /// The same on both ends of one TLS session only; empty without TLS.
    pub binding: Vec<u8>,
}

/// Why a peer is not trusted. Says nothing that helps a stranger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HandshakeError {
    #[error("a message of the handshake is malformed")]
    Malformed,
    #[error("it belongs to another cluster (`[cluster] name` differs)")]
    Cluster,
    #[error("it does not prove that it knows this cluster's secret (`[cluster] secret` differs)")]
    Proof,
    #[error("it sent our own nonce back")]
    Reflection,
}

#[derive(Clone, Copy)]
enum Side {
    Dialer,
    Listener,
}

/// What both sides have said; only the same words give the same proof.
struct Transcript {
    dialer: String,
    listener: String,
    dialer_nonce: Nonce,
    listener_nonce: Nonce,
}

/// A dialer that has said who it is.
pub struct Dialer {
    credentials: Credentials,
    nonce: Nonce,
}

/// A dialer that has proved itself and waits for the listener's proof.
pub struct ProvenDialer {
    credentials: Credentials,
    transcript: Transcript,
}

/// A listener that waits for the dialer's proof.
pub struct Listener {
    credentials: Credentials,
    transcript: Transcript,
}

impl Dialer {
    pub fn start(credentials: Credentials, nonce: Nonce) -> (Self, Bytes) {
        let mut message = BytesMut::new();
        message.put_slice(&nonce);
        put_name(&mut message, &credentials.cluster);
        put_name(&mut message, &credentials.node);
        (Self { credentials, nonce }, message.freeze())
    }

    /// Takes the listener's nonce and name; gives the proof to send.
    pub fn challenged(self, message: &[u8]) -> Result<(ProvenDialer, Bytes), HandshakeError> {
        let mut message = message;
        let listener_nonce = take_nonce(&mut message)?;
        let listener = take_name(&mut message)?;
        end(message)?;
        if listener_nonce == self.nonce {
            return Err(HandshakeError::Reflection);
        }
        let dialer = self.credentials.node.clone();
        let transcript = Transcript { dialer, listener, dialer_nonce: self.nonce, listener_nonce };
        let proof = transcript.proof(&self.credentials, Side::Dialer).finalize().into_bytes();
        let proof = Bytes::copy_from_slice(proof.as_slice());
        Ok((ProvenDialer { credentials: self.credentials, transcript }, proof))
    }
}

impl ProvenDialer {
    /// Takes the listener's proof; gives its name.
    pub fn proved(self, proof: &[u8]) -> Result<String, HandshakeError> {
        self.transcript.check(&self.credentials, Side::Listener, proof)?;
        Ok(self.transcript.listener)
    }
}

impl Listener {
    /// Takes the dialer's first message; gives the challenge to send.
    pub fn start(credentials: Credentials, nonce: Nonce, message: &[u8]) -> Result<(Self, Bytes), HandshakeError> {
        let mut message = message;
        let dialer_nonce = take_nonce(&mut message)?;
        let cluster = take_name(&mut message)?;
        let dialer = take_name(&mut message)?;
        end(message)?;
        if cluster != credentials.cluster {
            return Err(HandshakeError::Cluster);
        }
        if dialer_nonce == nonce {
            return Err(HandshakeError::Reflection);
        }
        let mut challenge = BytesMut::new();
        challenge.put_slice(&nonce);
        put_name(&mut challenge, &credentials.node);
        let listener = credentials.node.clone();
        let transcript = Transcript { dialer, listener, dialer_nonce, listener_nonce: nonce };
        Ok((Self { credentials, transcript }, challenge.freeze()))
    }

    /// Takes the dialer's proof; gives its name, and our proof to send.
    pub fn proved(self, proof: &[u8]) -> Result<(String, Bytes), HandshakeError> {
        self.transcript.check(&self.credentials, Side::Dialer, proof)?;
        let ours = self.transcript.proof(&self.credentials, Side::Listener).finalize().into_bytes();
        Ok((self.transcript.dialer, Bytes::copy_from_slice(ours.as_slice())))
    }
}

impl Transcript {
    fn proof(&self, credentials: &Credentials, side: Side) -> Hmac<Sha256> {
        let role: &[u8] = match side {
            Side::Dialer => b"holdfast dialer",
            Side::Listener => b"holdfast listener",
        };
        let mut mac = Hmac::<Sha256>::new_from_slice(&credentials.secret).expect("a key of any length is allowed");
        mac.update(&[VERSION]);
        let names = [credentials.cluster.as_bytes(), self.dialer.as_bytes(), self.listener.as_bytes()];
        let nonces = [&self.dialer_nonce[..], &self.listener_nonce[..]];
        for part in [role].into_iter().chain(names).chain(nonces).chain([&credentials.binding[..]]) {
            // With its length, so that no two different lists of parts are the same bytes.
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac
    }

    fn check(&self, credentials: &Credentials, side: Side, proof: &[u8]) -> Result<(), HandshakeError> {
        if proof.len() != PROOF_BYTES {
            return Err(HandshakeError::Malformed);
        }
        // In constant time: what a wrong proof costs must not tell how much of it was right.
        self.proof(credentials, side).verify_slice(proof).map_err(|_| HandshakeError::Proof)
    }
}

fn put_name(out: &mut BytesMut, name: &str) {
    let length = u8::try_from(name.len()).ok().filter(|length| usize::from(*length) <= MOST_NAME_BYTES);
    out.put_u8(length.expect("names are checked where they are configured"));
    out.put_slice(name.as_bytes());
}

fn take_nonce(message: &mut &[u8]) -> Result<Nonce, HandshakeError> {
    let (nonce, rest) = message.split_first_chunk::<NONCE_BYTES>().ok_or(HandshakeError::Malformed)?;
    *message = rest;
    Ok(*nonce)
}

fn take_name(message: &mut &[u8]) -> Result<String, HandshakeError> {
    let length = usize::from(message.try_get_u8().map_err(|_| HandshakeError::Malformed)?);
    if length == 0 || length > MOST_NAME_BYTES || length > message.len() {
        return Err(HandshakeError::Malformed);
    }
    let (name, rest) = message.split_at(length);
    *message = rest;
    let name = std::str::from_utf8(name).map_err(|_| HandshakeError::Malformed)?;
    is_name(name).then(|| name.to_owned()).ok_or(HandshakeError::Malformed)
}

fn end(message: &[u8]) -> Result<(), HandshakeError> {
    if message.is_empty() { Ok(()) } else { Err(HandshakeError::Malformed) }
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
