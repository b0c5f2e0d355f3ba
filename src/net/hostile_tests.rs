//! Peers that mean harm: a million and more frames, made at random and from good ones, at everything that reads bytes of a
//! peer.
//!
//! Invariant: whatever comes is refused or understood; nothing panics, and what is held stays below the limits.

use bytes::{Bytes, BytesMut};

use super::frame::tests::Random;
use super::frame::{Decoder, FrameKind, HEADER_BYTES, encode};
use super::handshake::{Credentials, Dialer, Listener, NONCE_BYTES};
use super::hello::{Hello, Limits};
use super::mux::Mux;
use super::settings::Settings;
use crate::model::codec;

const KINDS: [FrameKind; 10] = [
    FrameKind::Prove,
    FrameKind::Refuse,
    FrameKind::Hello,
    FrameKind::Piece,
    FrameKind::Credit,
    FrameKind::Cancel,
    FrameKind::Open,
    FrameKind::Abort,
    FrameKind::Alive,
    FrameKind::Goodbye,
];
const LIMIT: usize = 4 << 10;

fn noise(random: &mut Random, most: usize) -> Vec<u8> {
    let length = random.below(most + 1);
    // Small numbers lie where ids, lanes and lengths do.
    let small = random.below(2) == 0;
    (0..length).map(|_| if small { random.below(4) as u8 } else { random.draw() as u8 }).collect()
}

/// A frame as a stranger may send it: good, of another version, oversized, damaged, cut off, or nothing of the kind.
fn hostile_frame(random: &mut Random) -> Vec<u8> {
    let kind = KINDS[random.below(KINDS.len())];
    let mut out = BytesMut::new();
    encode(kind, &[&noise(random, 60)], &mut out);
    let mut bytes = out.to_vec();
    match random.below(8) {
        0 => bytes[1] = random.draw() as u8,
        1 => bytes[4..8].copy_from_slice(&(random.draw() as u32).to_le_bytes()),
        2 => {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
        3 => bytes.truncate(random.below(bytes.len())),
        4 => bytes = noise(random, 80),
        _ => {}
    }
    bytes
}

#[test]
fn the_decoder_refuses_half_a_million_hostile_frames_and_holds_no_more_than_one() {
    let mut random = Random(1);
    let (mut understood, mut refused) = (0, 0);
    let mut decoder = Decoder::new(LIMIT);
    for _ in 0..500_000 {
        let bytes = hostile_frame(&mut random);
        let mut input = &bytes[..];
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(frame)) => {
                    understood += 1;
                    assert!(frame.body.len() <= LIMIT);
                }
                Ok(None) => break,
                // The connection is closed; the next stranger has a decoder of its own.
                Err(_) => {
                    refused += 1;
                    decoder = Decoder::new(LIMIT);
                    break;
                }
            }
        }
        assert!(decoder.held_bytes() <= LIMIT + HEADER_BYTES, "{}", decoder.held_bytes());
    }
    assert!(understood > 100_000 && refused > 100_000, "{understood} understood, {refused} refused");
}

fn credentials(secret: &str) -> Credentials {
    Credentials { cluster: "shop".into(), node: "b".into(), secret: secret.into(), binding: Vec::new() }
}

/// A good message, damaged more often than not.
fn damaged(random: &mut Random, good: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    match random.below(5) {
        0 => bytes.truncate(random.below(bytes.len() + 1)),
        1 => bytes.extend(noise(random, 20)),
        2 => bytes = noise(random, 200),
        3 if !bytes.is_empty() => {
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
        }
        _ => {}
    }
    bytes
}

#[test]
fn nobody_without_the_secret_gets_through_the_handshake_in_a_hundred_thousand_attempts() {
    let mut random = Random(2);
    let (mut challenged, mut proofs) = (0, 0);
    for attempt in 0..100_000_u64 {
        let (nonce, other) = ([attempt as u8; NONCE_BYTES], [!attempt as u8; NONCE_BYTES]);
        let (dialer, first) = Dialer::start(credentials("guess"), nonce);
        let first = damaged(&mut random, &first);
        let Ok((listener, challenge)) = Listener::start(credentials("secret"), other, &first) else { continue };
        challenged += 1;
        let challenge = damaged(&mut random, &challenge);
        let proof = dialer.challenged(&challenge).map_or_else(|_| noise(&mut random, 64), |(_, proof)| proof.to_vec());
        proofs += 1;
        assert!(listener.proved(&damaged(&mut random, &proof)).is_err());
    }
    assert!(challenged > 10_000 && proofs > 10_000, "{challenged} {proofs}");
}

#[test]
fn words_that_are_decoded_after_the_handshake_may_be_anything() {
    let mut random = Random(3);
    for _ in 0..100_000 {
        let bytes = noise(&mut random, 120);
        let _ = codec::from_bytes::<Hello>("hello", &bytes);
        let _ = codec::decode::<super::control::FromNode>("message", &bytes);
        let _ = codec::decode::<super::control::FromMaster>("message", &bytes);
    }
}

#[test]
fn a_peer_that_keeps_to_nothing_is_refused_and_takes_no_memory_in_half_a_million_frames() {
    let limits = Limits::from(&Settings::for_tests());
    let most = u64::from(limits.services) * limits.send_window
        + 4 * limits.call_window
        + u64::from(limits.streams) * limits.stream_window;
    let new = |random: &mut Random| Mux::new(random.below(2) == 0, limits, limits, 256 << 10);
    let mut random = Random(4);
    let mut mux = new(&mut random);
    let (mut accepted, mut refused) = (0, 0);
    for step in 0..500_000 {
        // Kinds that belong to the handshake end a connection at once, and nothing comes after.
        let kind = KINDS[if random.below(50) == 0 { random.below(3) } else { 3 + random.below(7) }];
        let body = Bytes::from(noise(&mut random, 40));
        match mux.accept(super::frame::Frame { kind, body }) {
            Ok(_) => accepted += 1,
            Err(_) => {
                refused += 1;
                mux = new(&mut random);
            }
        }
        if step % 64 == 0 {
            assert!(mux.incoming_bytes() <= most);
            mux.produce(&mut BytesMut::new(), 64 << 10);
        }
    }
    assert!(accepted > 50_000 && refused > 10_000, "{accepted} accepted, {refused} refused");
}
