use proptest::prelude::*;

use super::*;

const LIMIT: usize = 1 << 10;

fn encoded(kind: FrameKind, body: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    encode(kind, &[body], &mut out);
    out.to_vec()
}

/// All frames in `input`, which comes in slices of these lengths.
fn decode_all(decoder: &mut Decoder, input: &[u8], slices: &[usize]) -> Result<Vec<Frame>, FrameError> {
    let (mut frames, mut rest, mut slices) = (Vec::new(), input, slices.iter().cycle());
    while !rest.is_empty() {
        let take = slices.next().copied().unwrap_or(1).clamp(1, rest.len());
        let (mut slice, after) = rest.split_at(take);
        rest = after;
        while let Some(frame) = decoder.decode(&mut slice)? {
            frames.push(frame);
        }
        assert!(slice.is_empty(), "without a frame all is taken");
    }
    Ok(frames)
}

proptest! {
    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_sliced(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8),
        slices in prop::collection::vec(1_usize..60, 1..5),
    ) {
        let input: Vec<u8> = bodies.iter().flat_map(|body| encoded(FrameKind::Piece, body)).collect();
        let frames = decode_all(&mut Decoder::new(LIMIT), &input, &slices).expect("all are good");
        prop_assert_eq!(frames.iter().map(|frame| frame.body.to_vec()).collect::<Vec<_>>(), bodies);
    }

    #[test]
    fn a_changed_byte_is_an_error_or_waits_for_bytes_that_never_come(
        body in prop::collection::vec(any::<u8>(), 0..100), at in any::<prop::sample::Index>(), change in 1_u8..,
    ) {
        let mut input = encoded(FrameKind::Credit, &body);
        let at = at.index(input.len());
        input[at] ^= change;
        let frames = decode_all(&mut Decoder::new(LIMIT), &input, &[7]);
        prop_assert!(frames.as_ref().map_or(true, Vec::is_empty), "{:?}", frames);
    }
}

#[test]
fn what_is_wrong_is_named() {
    let good = encoded(FrameKind::Hello, b"body");
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        decode_all(&mut Decoder::new(LIMIT), &bytes, &[100]).expect_err("wrong")
    };
    assert_eq!(with(0, b'G'), FrameError::Foreign);
    assert_eq!(with(1, 9), FrameError::Version { found: 9 });
    assert_eq!(with(2, 99), FrameError::Kind);
    assert_eq!(with(3, 1), FrameError::Kind);
    assert_eq!(with(13, b'x'), FrameError::Checksum);
}

#[test]
fn a_frame_above_the_limit_is_refused_before_memory_is_taken_for_it() {
    let mut decoder = Decoder::new(LIMIT);
    let mut header = encoded(FrameKind::Piece, b"")[..HEADER_BYTES].to_vec();
    header[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let error = decoder.decode(&mut &header[..]).expect_err("too long");
    assert_eq!(error, FrameError::Oversized { length: u32::MAX as usize, limit: LIMIT });
    assert_eq!(decoder.held_bytes(), 0);
}

#[test]
fn a_stranger_is_seen_at_his_first_byte() {
    assert_eq!(Decoder::new(LIMIT).decode(&mut &b"G"[..]), Err(FrameError::Foreign));
    assert_eq!(Decoder::new(LIMIT).decode(&mut &[MAGIC, 7][..]), Err(FrameError::Version { found: 7 }));
}

/// A small seeded generator (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.draw() % limit as u64) as usize
    }
}

/// One frame of a hostile peer, appended to `out`.
fn hostile(random: &mut Random, noise: &[u8], out: &mut BytesMut) -> bool {
    let start = random.below(noise.len() / 2);
    let body = &noise[start..start + random.below(96)];
    let kinds = [FrameKind::Prove, FrameKind::Piece, FrameKind::Credit, FrameKind::Abort, FrameKind::Alive];
    let at = out.len();
    encode(kinds[random.below(kinds.len())], &[body], out);
    match random.below(8) {
        0 => {
            let place = at + random.below(out.len() - at);
            out[place] ^= 1 << random.below(8);
        }
        1 => out.truncate(at + random.below(out.len() - at)),
        2 => out[at + 4..at + 8].copy_from_slice(&(random.draw() as u32).to_le_bytes()),
        3 => {
            out.truncate(at);
            out.put_slice(body);
        }
        _ => return true,
    }
    false
}

#[test]
fn a_million_hostile_frames_neither_panic_nor_take_memory() {
    const FRAMES: usize = 1_100_000;
    let mut random = Random(20_261_122);
    let noise: Vec<u8> = (0..512).map(|_| random.draw() as u8).collect();
    let (mut decoder, mut errors, mut good) = (Decoder::new(LIMIT), 0_usize, 0_usize);
    let mut out = BytesMut::new();
    let mut sent = 0;
    while sent < FRAMES {
        out.clear();
        for _ in 0..1 + random.below(6) {
            hostile(&mut random, &noise, &mut out);
            sent += 1;
        }
        let mut rest = &out[..];
        while !rest.is_empty() {
            let (mut slice, after) = rest.split_at(1 + random.below(rest.len()));
            rest = after;
            loop {
                match decoder.decode(&mut slice) {
                    Ok(Some(frame)) => {
                        assert!(frame.body.len() <= LIMIT);
                        good += 1;
                    }
                    Ok(None) => break,
                    Err(_) => {
                        errors += 1;
                        // As a connection would: closed, and the next one begins anew.
                        (decoder, rest) = (Decoder::new(LIMIT), &[]);
                        break;
                    }
                }
            }
            assert!(decoder.held_bytes() <= LIMIT);
        }
    }
    assert!(good > FRAMES / 10 && errors > FRAMES / 20, "both were met: {good} good, {errors} errors");
}
