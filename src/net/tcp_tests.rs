use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::model::units::Millis;
use crate::net::fixture_tests::*;
use crate::net::frame::{self, FrameKind, MAGIC, VERSION};
use crate::net::link::RefusalKind;
use crate::net::settings::TlsFiles;

fn node_with(identity: Identity, settings: Settings) -> (TcpNet, Arc<Services>) {
    let services = Services::new();
    let net =
        TcpNet::new(identity, settings, Path::new(""), Clock::System, services.clone()).expect("no files to read");
    (net, services)
}

fn node(name: &str) -> (TcpNet, Arc<Services>) {
    node_with(identity(name), Settings::for_tests())
}

const ANYWHERE: &str = "127.0.0.1:0";

struct Pair {
    link: Arc<dyn Link>,
    services: Arc<Services>,
    listener: TcpNet,
    listening: Listening,
    _dialer: TcpNet,
}

async fn pair_with(dialer: (TcpNet, Arc<Services>), listener: (TcpNet, Arc<Services>)) -> Pair {
    let listening = listener.0.listen(ANYWHERE).await.expect("a free port");
    let link = dialer.0.dial(&listening.address);
    Pair { link, services: listener.1, listener: listener.0, listening, _dialer: dialer.0 }
}

async fn pair() -> Pair {
    let pair = pair_with(node("a"), node("b")).await;
    until_up(&pair.link).await;
    pair
}

/// A stranger's socket to a node.
async fn stranger(pair: &Pair) -> TcpStream {
    TcpStream::connect(&pair.listening.address).await.expect("it listens")
}

/// What the node says until it closes.
async fn last_words(socket: &mut TcpStream) -> String {
    let mut words = Vec::new();
    let read = tokio::time::timeout(SOON, socket.read_to_end(&mut words)).await;
    read.expect("the node closes").ok();
    String::from_utf8_lossy(&words).into_owned()
}

#[tokio::test]
async fn both_sides_call_each_other() {
    let pair = pair().await;
    assert_eq!(pair.link.call(WHO, Bytes::new(), SOON).await, Ok("a".into()));
    let back = pair.services.link().expect("connected");
    assert_eq!(back.call(WHO, Bytes::new(), SOON).await, Ok("b".into()));
    let state = pair.link.state().borrow().clone();
    assert_eq!(state.peer().map(|peer| (peer.name.as_str(), peer.has_role("slave"))), Some(("b", true)));
}

#[tokio::test]
async fn a_connection_on_which_nobody_has_anything_to_say_stays() {
    let settings = || Settings { alive_interval: Millis(40), silence: Millis(200), ..Settings::for_tests() };
    let pair = pair_with(node_with(identity("a"), settings()), node_with(identity("b"), settings())).await;
    until_up(&pair.link).await;
    let before = pair.link.state().borrow().clone();
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    assert_eq!(*pair.link.state().borrow(), before);
}

#[tokio::test]
async fn answers_come_in_any_order_and_refusals_are_told() {
    let pair = pair().await;
    let late = pair.link.call(GATED, "late".into(), SOON);
    let early = async {
        let early = pair.link.call(ECHO, "early".into(), SOON).await;
        pair.services.gate.add_permits(1);
        early
    };
    assert_eq!(tokio::join!(late, early), (Ok("late".into()), Ok("early".into())));
    let error = pair.link.call(999, Bytes::new(), SOON).await.expect_err("no such service");
    assert!(is_refused(&error, RefusalKind::NoSuchService) && !error.is_retryable(), "{error}");
    let error = pair.link.call(PANICS, Bytes::new(), SOON).await.expect_err("its handler died");
    assert!(is_refused(&error, RefusalKind::Failed), "{error}");
    pair.link.send(PANICS, Bytes::new()).expect("room");
    pair.link.send(PANICS, "after".into()).expect("room");
    eventually("the next message is received", || pair.services.messages() == ["after"]).await;
}

#[tokio::test]
async fn long_bodies_arrive_whole_and_too_long_ones_are_refused() {
    let pair = pair().await;
    let body: Bytes = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect::<Vec<u8>>().into();
    let calls = (0..5).map(|_| pair.link.call(ECHO, body.clone(), SOON));
    for answer in futures::future::join_all(calls).await {
        assert!(answer.is_ok_and(|answer| answer == body));
    }
    let too_long: Bytes = vec![0; (4 << 20) + 1].into();
    let error = pair.link.call(ECHO, too_long.clone(), SOON).await.expect_err("above `body`");
    assert!(matches!(error, NetError::TooLarge { limit, .. } if limit == 4 << 20), "{error}");
    assert!(matches!(pair.link.send(ECHO, too_long), Err(NetError::TooLarge { .. })));
    let error = pair.link.call(MUCH, "5000000".into(), SOON).await.expect_err("the answer is too long");
    assert!(is_refused(&error, RefusalKind::Failed), "{error}");
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_gives_its_place_back() {
    let pair = pair().await;
    for _ in 0..3 {
        let short = Duration::from_millis(30);
        let calls = (0..32).map(|_| pair.link.call(NEVER, vec![0; 1_000].into(), short));
        for outcome in futures::future::join_all(calls).await {
            assert_eq!(outcome, Err(NetError::Timeout { peer: "b".into(), after_ms: 30 }));
        }
        // The places are free again once the peer has heard of it.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(pair.link.call(ECHO, "x".into(), SOON).await, Ok("x".into()));
}

#[tokio::test]
async fn calls_above_the_limit_are_refused_at_once() {
    let pair = pair().await;
    let calls = (0..40).map(|_| pair.link.call(GATED, Bytes::new(), SOON));
    let open = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        pair.services.gate.add_permits(40);
    };
    let (outcomes, ()) = tokio::join!(futures::future::join_all(calls), open);
    let full = outcomes.iter().filter(|outcome| matches!(outcome, Err(NetError::Full { .. }))).count();
    assert_eq!((full, outcomes.iter().filter(|outcome| outcome.is_ok()).count()), (8, 32));
}

#[tokio::test]
async fn a_node_with_another_secret_is_refused_and_nothing_of_it_is_read() {
    let dialer = node_with(identity_with("a", "guess", "64"), Settings::for_tests());
    let pair = pair_with(dialer, node("b")).await;
    until_down(&pair.link, "secret").await;
    let error = pair.link.call(ECHO, Bytes::new(), SOON).await.expect_err("no connection");
    assert!(matches!(error, NetError::Lost { .. }) && error.is_retryable(), "{error}");
    // It tries again and again, and is one refused peer.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(lock(&pair.listener.local.refusals).remembered(), 1);
    assert!(pair.services.link().is_none());
}

#[tokio::test]
async fn a_node_whose_cluster_section_differs_hears_which_key() {
    let dialer = node_with(identity_with("a", "secret", "32"), Settings::for_tests());
    let pair = pair_with(dialer, node("b")).await;
    until_down(&pair.link, "`[cluster] partitions` differs").await;
    assert!(pair.services.link().is_none());
}

#[tokio::test]
async fn strangers_are_refused_whatever_they_send() {
    let pair = pair().await;
    let mut hello = BytesMut::new();
    frame::encode(FrameKind::Hello, &[b"before any proof"], &mut hello);
    let mut damaged = hello.to_vec();
    damaged[12] ^= 1;
    let mut oversized = vec![MAGIC, VERSION, FrameKind::Prove as u8, 0];
    oversized.extend_from_slice(&(1_u32 << 20).to_le_bytes());
    oversized.extend_from_slice(&[0; 4]);
    let sent: [(&[u8], &str); 6] = [
        (b"GET / HTTP/1.1\r\n\r\n", "not of this protocol"),
        (&[MAGIC, 200, 1, 0], "protocol version 200"),
        (&oversized, "the limit is 1024"),
        (&damaged, "damaged"),
        (&hello, "something else than the handshake"),
        // Truncated: it never comes.
        (&[MAGIC, VERSION, 1], "in time"),
    ];
    for (bytes, words) in sent {
        let mut socket = stranger(&pair).await;
        socket.write_all(bytes).await.expect("it is heard");
        let said = last_words(&mut socket).await;
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_eq!(pair.link.call(ECHO, "x".into(), SOON).await, Ok("x".into()), "peers notice nothing");
}

#[tokio::test]
async fn strangers_that_say_nothing_are_limited_and_let_go() {
    let pair = pair().await;
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(stranger(&pair).await);
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(last_words(&mut stranger(&pair).await).await, "", "no place at the door");
    for mut socket in silent {
        assert!(last_words(&mut socket).await.contains("in time"));
    }
    let (late, _services) = node("late");
    until_up(&late.dial(&pair.listening.address)).await;
}

#[tokio::test]
async fn peers_above_the_limit_are_refused() {
    let settings = Settings { connections: 1, ..Settings::for_tests() };
    let pair = pair_with(node("a"), node_with(identity("b"), settings)).await;
    until_up(&pair.link).await;
    let (other, _services) = node("c");
    let link = other.dial(&pair.listening.address);
    until_down(&link, "too many peers").await;
    pair.link.close("done");
    until_up(&link).await;
}

#[tokio::test]
async fn a_silent_peer_is_noticed_within_the_configured_time() {
    // A node that proves itself and then says nothing more.
    let pair = pair_with(node("a"), node("b")).await;
    until_up(&pair.link).await;
    let entry = Entry::new(identity("c"), &Settings::for_tests());
    let entered = entry.dial(Box::new(stranger(&pair).await), Vec::new()).await;
    let (_, halves) = entered.unwrap_or_else(|error| panic!("it knows the secret: {error}"));
    eventually("it is connected", || lock(&pair.services.links).len() == 2).await;
    let begun = std::time::Instant::now();
    let link = pair.services.link().expect("connected");
    let waiting = link.call(ECHO, Bytes::new(), SOON);
    assert!(matches!(waiting.await, Err(NetError::Lost { ref peer, .. }) if peer == "c"));
    until_down(&link, "said nothing for 1000 ms").await;
    assert!((800..5_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    drop(halves);
    assert!(pair.link.state().borrow().peer().is_some(), "a peer that has nothing to say but is alive stays");
}

#[tokio::test]
async fn a_node_that_hears_much_and_has_nothing_to_say_is_not_taken_for_silent() {
    let settings = Settings { silence: Millis(400), ..Settings::for_tests() };
    let pair = pair_with(node_with(identity("a"), settings), node("b")).await;
    until_up(&pair.link).await;
    let first = pair.link.state().borrow().clone();
    for _ in 0..50 {
        pair.link.send(ECHO, "x".into()).expect("it is connected");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(*pair.link.state().borrow(), first);
}

#[tokio::test]
async fn a_link_comes_back_when_the_listener_does() {
    let Pair { link, services, listener, listening, _dialer } = pair().await;
    let first = services.link().expect("connected");
    let mut state = link.state();
    state.mark_unchanged();
    let address = listening.address.clone();
    drop(listening);
    tokio::time::timeout(Duration::from_secs(1), state.changed()).await.expect("at once").expect("the link lives");
    assert!(state.borrow().peer().is_none());
    assert!(matches!(link.send(MESSAGES, Bytes::new()), Err(NetError::Lost { .. })));
    assert!(first.state().borrow().peer().is_none());
    tokio::time::sleep(Duration::from_millis(100)).await;
    let _again = listener.listen(&address).await.expect("the port is free again");
    until_up(&link).await;
    assert_eq!(link.call(ECHO, "x".into(), SOON).await, Ok("x".into()));
}

#[tokio::test]
async fn a_closed_link_says_why_and_stays_closed() {
    let pair = pair().await;
    let accepted = pair.services.link().expect("connected");
    pair.link.close("moved away");
    until_down(&accepted, "closed by the peer: moved away").await;
    until_down(&pair.link, "moved away").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(matches!(pair.link.call(ECHO, Bytes::new(), SOON).await, Err(NetError::Lost { .. })));
    assert_eq!(lock(&pair.services.links).len(), 1, "no other connection was made");
}

#[tokio::test]
async fn a_service_that_takes_no_messages_fills_its_own_queue_only() {
    let pair = pair().await;
    let message: Bytes = vec![1; 10_000].into();
    let mut sent = 0;
    let error = loop {
        match pair.link.send(GATED_MESSAGES, message.clone()) {
            Ok(()) => sent += 1,
            Err(error) => {
                // The window is full as well: nothing moves any more.
                tokio::time::sleep(Duration::from_millis(20)).await;
                if pair.link.send(GATED_MESSAGES, message.clone()).is_err() {
                    break error;
                }
                sent += 1;
            }
        }
        assert!(sent < 100, "the queue and the window hold 256 KiB each");
    };
    assert!(matches!(error, NetError::Full { .. }) && error.is_retryable(), "{error}");
    // Other services and calls pass.
    pair.link.send(MESSAGES, "passes".into()).expect("another service");
    eventually("it is received", || pair.services.messages() == ["passes"]).await;
    assert_eq!(pair.link.call(ECHO, "x".into(), SOON).await, Ok("x".into()));
    pair.services.gate.add_permits(sent);
    eventually("all arrive in the end", || pair.services.messages().len() == sent + 1).await;
}

#[tokio::test]
async fn a_stream_carries_items_both_ways_and_says_how_it_ended() {
    let pair = pair().await;
    let (mut writer, mut reader) = pair.link.open(ECHO_STREAM).expect("room");
    let write = async {
        for n in 0..2_000_u32 {
            writer.write(vec![n as u8; (n % 3_000) as usize].into()).await.expect("it reads");
        }
        writer.finish().expect("it lives");
    };
    let read = async {
        let mut lengths = Vec::new();
        while let Some(item) = reader.read().await.expect("whole") {
            lengths.push(item.len() as u32);
        }
        lengths
    };
    let (lengths, ()) = tokio::join!(read, write);
    assert_eq!(lengths, (0..2_000).collect::<Vec<u32>>());
    let (writer, mut reader) = pair.link.open(ECHO_STREAM).expect("room");
    drop(writer);
    assert!(matches!(reader.read().await, Err(NetError::Aborted { .. })), "a part is not the whole");
    let (_writer, mut reader) = pair.link.open(999).expect("room");
    assert!(matches!(reader.read().await, Err(NetError::Aborted { .. })), "nobody took it");
}

#[tokio::test]
async fn a_slow_reader_stops_its_writer_and_takes_no_memory() {
    let pair = pair().await;
    let (mut writer, mut reader) = pair.link.open(GATED_STREAM).expect("room");
    let item: Bytes = vec![1; 10_000].into();
    let mut written = 0_usize;
    while tokio::time::timeout(Duration::from_millis(300), writer.write(item.clone())).await.is_ok() {
        written += 1;
        assert!(written < 60, "the two windows hold 128 KiB each");
    }
    assert!(written >= 12, "{written}: the window was used");
    assert_eq!(pair.link.call(ECHO, "x".into(), SOON).await, Ok("x".into()), "others pass");
    pair.services.gate.add_permits(1_000);
    let write = async {
        for _ in written..100 {
            writer.write(item.clone()).await.expect("it reads again");
        }
        writer.finish().expect("it lives");
    };
    let read = async {
        let mut items = 0;
        while reader.read().await.expect("whole").is_some() {
            items += 1;
        }
        items
    };
    let (items, ()) = tokio::join!(read, write);
    assert_eq!(items, 100);
}

#[tokio::test]
async fn a_small_call_does_not_wait_for_large_ones() {
    let pair = pair().await;
    let body: Bytes = vec![1; 4 << 20].into();
    let large = (0..16).map(|_| pair.link.call(ECHO, body.clone(), SOON));
    let mut large = Box::pin(futures::future::join_all(large));
    let small = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        pair.link.call(ECHO, "small".into(), SOON).await
    };
    tokio::select! {
        _ = &mut large => panic!("64 MiB overtook the small call"),
        answer = small => assert_eq!(answer, Ok("small".into())),
    }
    assert!(large.await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn nothing_listens_beyond_loopback_without_a_secret() {
    let (open, _services) = node_with(identity_with("a", "", "64"), Settings::for_tests());
    let error = open.listen("0.0.0.0:0").await.map(|listening| listening.address.clone()).expect_err("insecure");
    assert!(error.to_string().contains("`[cluster] secret`"), "{error}");
    assert!(open.listen(ANYWHERE).await.is_ok());
    let (secret, _services) = node("b");
    assert!(secret.listen("0.0.0.0:0").await.is_ok());
}

#[tokio::test]
async fn nodes_without_a_secret_on_loopback_find_each_other() {
    let without = |name| node_with(identity_with(name, "", "64"), Settings::for_tests());
    let pair = pair_with(without("a"), without("b")).await;
    until_up(&pair.link).await;
}

/// An authority, and the files of a node that it has signed for 127.0.0.1.
fn certificates(folder: &Path, authority: &str) -> TlsFiles {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("randomness")).expect("signs itself");
    let key = KeyPair::generate().expect("randomness");
    let node = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address");
    let certificate = node.signed_by(&key, &issuer).expect("signs");
    let write = |name: &str, text: String| {
        let file = folder.join(format!("{authority}-{name}"));
        std::fs::write(&file, text).expect("writable");
        file
    };
    TlsFiles {
        certificate: write("node.pem", certificate.pem()),
        key: write("key.pem", key.serialize_pem()),
        authority: write("authority.pem", issuer.pem()),
    }
}

fn tls_node(name: &str, tls: &TlsFiles) -> (TcpNet, Arc<Services>) {
    node_with(identity(name), Settings { tls: Some(tls.clone()), ..Settings::for_tests() })
}

#[tokio::test]
async fn with_tls_both_sides_check_each_others_certificate() {
    let folder = tempfile::tempdir().expect("writable");
    let (ours, others) = (certificates(folder.path(), "ours"), certificates(folder.path(), "others"));
    let pair = pair_with(tls_node("a", &ours), tls_node("b", &ours)).await;
    until_up(&pair.link).await;
    let body: Bytes = vec![3; 1 << 20].into();
    assert_eq!(pair.link.call(ECHO, body.clone(), SOON).await, Ok(body));
    for (stranger, words) in [(tls_node("c", &others), "TLS"), (node("d"), "")] {
        let link = stranger.0.dial(&pair.listening.address);
        until(&link, |state| matches!(state, LinkState::Down { reason } if &**reason != "not connected yet")).await;
        until_down(&link, words).await;
    }
    // Trusts the listener, and shows a certificate that the listener does not trust.
    let mixed = TlsFiles { authority: ours.authority.clone(), ..others };
    let (mixed, _services) = tls_node("e", &mixed);
    let link = mixed.dial(&pair.listening.address);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(link.state().borrow().peer().is_none());
    assert_eq!(lock(&pair.services.links).len(), 1);
}

#[test]
fn a_node_with_a_name_that_cannot_be_told_is_refused_at_home() {
    for name in ["", "two\nlines", &"x".repeat(129)] {
        let net = TcpNet::new(identity(name), Settings::for_tests(), Path::new(""), Clock::System, Services::new());
        assert_eq!(net.map(|_| ()), Err(NetError::Name { name: name.to_owned() }));
    }
}

#[tokio::test]
async fn certificates_that_cannot_be_read_are_named() {
    let files = TlsFiles { certificate: "none.pem".into(), key: "key.pem".into(), authority: "ca.pem".into() };
    let settings = Settings { tls: Some(files), ..Settings::for_tests() };
    let net = TcpNet::new(identity("a"), settings, Path::new("nowhere"), Clock::System, Services::new());
    let error = net.map(|_| ()).expect_err("no such file");
    assert!(error.to_string().contains("none.pem"), "{error}");
}
