use super::*;
use crate::net::frame::Decoder;
use crate::net::frame::tests::Random;
use crate::net::settings::Settings;

const QUEUE: u64 = 256 << 10;

fn limits() -> Limits {
    Limits::from(&Settings::for_tests())
}

/// Both sides of a connection, and what each has heard.
struct Both {
    dialer: Mux,
    listener: Mux,
}

impl Both {
    fn new() -> Self {
        let new = |is_dialer| Mux::new(is_dialer, limits(), limits(), QUEUE);
        Self { dialer: new(true), listener: new(false) }
    }

    /// Carries about `most` bytes from one side to the other.
    fn carry(from: &mut Mux, to: &mut Mux, most: usize) -> Vec<Event> {
        let mut out = BytesMut::new();
        from.produce(&mut out, most);
        let (mut decoder, mut input, mut events) = (Decoder::new(1 << 20), &out[..], Vec::new());
        while let Some(frame) = decoder.decode(&mut input).expect("whole frames") {
            events.extend(to.accept(frame).expect("both keep to the protocol"));
        }
        events
    }

    fn there(&mut self) -> Vec<Event> {
        Self::carry(&mut self.dialer, &mut self.listener, usize::MAX)
    }

    fn back(&mut self) -> Vec<Event> {
        Self::carry(&mut self.listener, &mut self.dialer, usize::MAX)
    }
}

fn body(length: usize) -> Bytes {
    vec![5; length].into()
}

#[test]
fn a_small_body_waits_for_one_piece_of_a_large_one_at_most() {
    let mut both = Both::new();
    both.dialer.call(1, body(1 << 20)).expect("room");
    both.dialer.call(1, body(1 << 20)).expect("room");
    Both::carry(&mut both.dialer, &mut both.listener, 1);
    let small = both.dialer.call(2, body(10)).expect("room");
    let events = Both::carry(&mut both.dialer, &mut both.listener, 17 << 10);
    assert!(matches!(events[..], [Event::Call { id, service: 2, .. }] if id == small), "{events:?}");
    assert_eq!(both.there().len(), 2, "the large ones arrive whole");
}

#[test]
fn calls_wait_for_room_and_none_is_lost() {
    let mut both = Both::new();
    // The window takes one of these at a time.
    let ids: Vec<u64> = (0..5).map(|_| both.dialer.call(1, body(4 << 20)).expect("room")).collect();
    for id in ids {
        let events = both.there();
        assert!(matches!(events[..], [Event::Call { id: came, .. }] if came == id), "{}", events.len());
        assert!(both.listener.incoming_bytes() <= limits().call_window);
        both.listener.answer(id, Ok(Bytes::new()));
        assert_eq!(both.back(), [Event::Answered { id, outcome: Ok(Bytes::new()) }]);
    }
    assert_eq!(both.listener.incoming_bytes(), 0);
}

#[test]
fn a_cancelled_call_leaves_nothing_behind_at_any_stage() {
    for (carried, is_heard) in [(0, false), (20 << 10, false), (usize::MAX, true)] {
        let mut both = Both::new();
        let id = both.dialer.call(1, body(1 << 20)).expect("room");
        let heard = if carried > 0 { Both::carry(&mut both.dialer, &mut both.listener, carried) } else { Vec::new() };
        assert_eq!(heard.len(), usize::from(is_heard));
        both.dialer.cancel(id);
        let cancelled = both.there();
        if is_heard {
            assert_eq!(cancelled, [Event::Cancelled { id }]);
            both.listener.answer(id, Ok(body(10)));
        }
        assert_eq!(both.back(), [], "nobody hears the answer");
        assert_eq!((both.dialer.calls.len(), both.listener.serving.len()), (0, 0));
        assert_eq!((both.dialer.incoming_bytes(), both.listener.incoming_bytes()), (0, 0));
        // The whole window is free again.
        both.dialer.call(1, body(4 << 20)).expect("room");
        assert_eq!(both.there().len(), 1);
    }
}

#[test]
fn messages_to_one_service_stay_in_order_and_within_their_window() {
    let mut both = Both::new();
    let mut sent = 0_u32;
    while both.dialer.send(7, vec![sent as u8; 1 + 20_000 * (sent as usize % 2)].into()).is_ok() {
        sent += 1;
    }
    assert!(both.dialer.send(8, Bytes::new()).is_ok(), "another service has a queue of its own");
    let mut came = Vec::new();
    while came.len() < sent as usize {
        let events = both.there();
        assert!(!events.is_empty(), "it goes on");
        assert!(both.listener.incoming_bytes() <= 2 * limits().send_window);
        for event in events {
            let Event::Message { service, body } = event else { panic!("{event:?}") };
            both.listener.received(service, body.len());
            came.extend((service == 7).then(|| body[0]));
        }
        both.back();
    }
    assert_eq!(came, (0..sent).map(|n| n as u8).collect::<Vec<u8>>());
    assert_eq!(both.listener.incoming_bytes(), 0);
}

#[test]
fn who_reads_learns_how_a_stream_ended_however_late_he_reads() {
    let mut both = Both::new();
    for is_whole in [true, false] {
        let id = both.dialer.open(3).expect("room");
        assert_eq!(both.dialer.write(id, &body(5)), Wrote::Done);
        assert_eq!(both.there(), [Event::Opened { stream: id, service: 3 }]);
        if is_whole {
            both.dialer.finish(id);
        } else {
            both.dialer.abandon(id, Half::Writing);
        }
        both.dialer.abandon(id, Half::Reading);
        both.there();
        assert!(matches!(both.listener.write(id, &body(1)), Wrote::Broken(_)));
        if is_whole {
            assert_eq!(both.listener.read(id), Read::Item(body(5)));
            assert_eq!(both.listener.read(id), Read::End);
        } else {
            assert!(matches!(both.listener.read(id), Read::Broken(_)));
        }
        both.listener.abandon(id, Half::Writing);
        both.back();
        assert_eq!((both.dialer.streams.held(), both.listener.streams.held()), (0, 0));
        assert_eq!((both.dialer.incoming_bytes(), both.listener.incoming_bytes()), (0, 0));
    }
    // All places are free: nothing was kept of the streams.
    for _ in 0..limits().streams {
        both.dialer.open(3).expect("room");
    }
    assert!(matches!(both.dialer.open(3), Err(Denied::Full(_))));
}

#[test]
fn a_peer_that_sends_more_than_it_may_breaks_the_protocol() {
    let small = Limits { call_window: 8 << 10, calls: 4, services: 1, body: 4 << 10, ..limits() };
    let generous = limits();
    let overrun = |act: &dyn Fn(&mut Mux)| {
        let mut peer = Mux::new(true, generous, generous, QUEUE);
        let mut own = Mux::new(false, small, generous, QUEUE);
        act(&mut peer);
        let mut out = BytesMut::new();
        peer.produce(&mut out, usize::MAX);
        let (mut decoder, mut input) = (Decoder::new(1 << 20), &out[..]);
        while let Some(frame) = decoder.decode(&mut input).expect("whole frames") {
            if let Err(violation) = own.accept(frame) {
                return violation.0;
            }
            assert!(own.incoming_bytes() <= 4 * small.call_window);
        }
        "none"
    };
    let call = |mux: &mut Mux, length: usize| mux.call(1, body(length)).is_ok();
    assert_eq!(overrun(&|mux| assert!(call(mux, 5 << 10))), "a body above the limit");
    assert_eq!(overrun(&|mux| (0..3).for_each(|_| assert!(call(mux, 3 << 10)))), "more than there was credit for");
    assert_eq!(overrun(&|mux| (0..5).for_each(|_| assert!(call(mux, 1)))), "more calls than the limit");
    assert_eq!(
        overrun(&|mux| (0..2).for_each(|n| assert!(mux.send(n, body(1)).is_ok()))),
        "messages to too many services"
    );
}

#[test]
fn hostile_frames_neither_panic_nor_take_memory() {
    let kinds = [FrameKind::Piece, FrameKind::Credit, FrameKind::Cancel, FrameKind::Open, FrameKind::Abort];
    let mut random = Random(7);
    let (mut out, mut violations) = (BytesMut::new(), 0);
    let mut mux = Mux::new(false, limits(), limits(), QUEUE);
    for _ in 0..300_000 {
        // Small numbers, so that they are often meaningful.
        let mut bytes = [0_u8; 40];
        bytes.iter_mut().for_each(|byte| *byte = if random.below(3) == 0 { random.below(8) as u8 } else { 0 });
        let kind = kinds[random.below(kinds.len())];
        let frame = Frame { kind, body: Bytes::copy_from_slice(&bytes[..random.below(40)]) };
        match mux.accept(frame) {
            Ok(Some(Event::Call { id, .. })) if random.below(2) == 0 => mux.answer(id, Ok(body(9))),
            Ok(Some(Event::Opened { stream, .. })) => drop(mux.write(stream, &body(random.below(100)))),
            Ok(_) => {}
            Err(_) => {
                violations += 1;
                mux = Mux::new(false, limits(), limits(), QUEUE);
            }
        }
        match random.below(40) {
            0 => drop(mux.call(1, body(random.below(40_000)))),
            1 => drop(mux.read(random.below(9) as u64)),
            2 => mux.abandon(random.below(9) as u64, Half::Both),
            3 => {
                out.clear();
                mux.produce(&mut out, 8 << 10);
            }
            _ => {}
        }
        assert!(mux.incoming_bytes() < 64 << 20);
    }
    assert!(violations > 1_000, "{violations}");
}
