use super::*;
use crate::backoff::Backoff;
use crate::model::units::Millis;
use crate::net::fixture_tests::*;
use crate::net::tcp_arrivals::LISTENS_AT;

/// Node `a` with a link to node `b`.
struct Pair {
    net: MemoryNet,
    link: Arc<dyn Link>,
    services: Arc<Services>,
    _listening: Listening,
}

async fn pair() -> Pair {
    let net = MemoryNet::default();
    let services = Services::new();
    let b = net.node(identity("b"), Settings::for_tests(), services.clone());
    let listening = b.listen("b:1").await.expect("free");
    let a = net.node(identity("a"), Settings::for_tests(), Services::new());
    let link = a.dial("b:1");
    until_up(&link).await;
    Pair { net, link, services, _listening: listening }
}

const SHORT: Duration = Duration::from_millis(100);

#[tokio::test]
async fn calls_and_messages_go_as_over_sockets() {
    let pair = pair().await;
    assert_eq!(pair.link.call(WHO, Bytes::new(), SOON).await, Ok("a".into()));
    pair.link.send(MESSAGES, "hello".into()).expect("room");
    eventually("it is received", || pair.services.messages() == ["hello"]).await;
}

#[tokio::test]
async fn a_cut_in_either_direction_is_noticed_by_both_and_healed() {
    for (from, to) in [("a", "b"), ("b", "a")] {
        let pair = pair().await;
        pair.net.cut(from, to);
        let error = pair.link.call(ECHO, "x".into(), SHORT).await.expect_err("it cannot get through");
        assert!(error.is_retryable(), "{error}");
        until(&pair.link, |state| state.peer().is_none()).await;
        let accepted = pair.services.link().expect("it was connected");
        until(&accepted, |state| state.peer().is_none()).await;
        pair.net.heal("a", "b");
        until_up(&pair.link).await;
        assert_eq!(pair.link.call(ECHO, "x".into(), SOON).await, Ok("x".into()));
    }
}

#[tokio::test]
async fn a_broken_connection_is_seen_at_once_and_made_again() {
    let pair = pair().await;
    let waiting = pair.link.call(NEVER, Bytes::new(), SOON);
    let begun = std::time::Instant::now();
    let (outcome, ()) = tokio::join!(waiting, async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        pair.net.break_off("a", "b");
    });
    assert!(matches!(outcome, Err(NetError::Lost { ref peer, .. }) if peer == "b"), "{outcome:?}");
    assert!(begun.elapsed() < Duration::from_secs(2), "at once, not when the deadline passes");
    until_up(&pair.link).await;
    assert_eq!(pair.link.call(ECHO, "x".into(), SOON).await, Ok("x".into()));
}

#[tokio::test]
async fn lost_messages_never_arrive_and_lost_calls_time_out() {
    let pair = pair().await;
    pair.net.lose("a", "b", 2);
    for n in 0..6 {
        pair.link.send(MESSAGES, n.to_string().into()).expect("room");
    }
    eventually("every other arrives", || pair.services.messages() == ["0", "2", "4"]).await;
    assert_eq!(pair.link.call(ECHO, "x".into(), SOON).await, Ok("x".into()));
    let lost = pair.link.call(ECHO, "x".into(), SHORT).await;
    assert_eq!(lost, Err(NetError::Timeout { peer: "b".into(), after_ms: 100 }));
}

#[tokio::test]
async fn a_delay_adds_to_every_answer() {
    let pair = pair().await;
    pair.net.delay("a", "b", Duration::from_millis(60));
    let begun = std::time::Instant::now();
    assert_eq!(pair.link.call(ECHO, "x".into(), SOON).await, Ok("x".into()));
    assert!(begun.elapsed() >= Duration::from_millis(60));
}

#[tokio::test]
async fn whoever_could_not_be_reached_and_connects_by_itself_is_dialed_at_once() {
    let net = MemoryNet::default();
    // Far longer than this test waits.
    let patient = Backoff { first: Millis(60_000), most: Millis(60_000) };
    let settings = Settings { reconnect: patient, ..Settings::for_tests() };
    let a = net.node(identity("a"), settings, Services::new());
    let _a_listens = a.listen("a:1").await.expect("free");
    let to_b = a.dial("b:1");
    until_down(&to_b, "nobody listens there").await;

    let mut of_b = identity("b");
    of_b.me.addresses = vec![(LISTENS_AT.to_owned(), "b:1".to_owned())];
    let b = net.node(of_b, Settings::for_tests(), Services::new());
    let _b_listens = b.listen("b:1").await.expect("free");
    let to_a = b.dial("a:1");
    until_up(&to_a).await;
    until_up(&to_b).await;
}
