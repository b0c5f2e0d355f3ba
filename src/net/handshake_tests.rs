use super::*;

fn credentials(node: &str, secret: &str) -> Credentials {
    Credentials { cluster: "shop".into(), node: node.into(), secret: secret.into(), binding: Vec::new() }
}

/// The whole exchange: what each side knows of the other at its end.
fn exchange(dialer: Credentials, listener: Credentials) -> Result<(String, String), HandshakeError> {
    let (dialer, first) = Dialer::start(dialer, [1; NONCE_BYTES]);
    let (listener, challenge) = Listener::start(listener, [2; NONCE_BYTES], &first)?;
    let (dialer, proof) = dialer.challenged(&challenge)?;
    let (dialer_name, proof) = listener.proved(&proof)?;
    Ok((dialer.proved(&proof)?, dialer_name))
}

#[test]
fn two_nodes_with_the_same_secret_learn_each_others_name() {
    let known = exchange(credentials("a", "secret"), credentials("b", "secret"));
    assert_eq!(known, Ok(("b".into(), "a".into())));
    assert!(exchange(credentials("a", ""), credentials("b", "")).is_ok(), "without a secret the exchange is the same");
}

#[test]
fn another_secret_cluster_or_tls_session_is_refused() {
    assert_eq!(exchange(credentials("a", "secret"), credentials("b", "other")), Err(HandshakeError::Proof));
    assert_eq!(exchange(credentials("a", ""), credentials("b", "secret")), Err(HandshakeError::Proof));
    let elsewhere = Credentials { cluster: "mall".into(), ..credentials("a", "secret") };
    assert_eq!(exchange(elsewhere, credentials("b", "secret")), Err(HandshakeError::Cluster));
    let other_session = Credentials { binding: b"session 2".into(), ..credentials("a", "secret") };
    assert_eq!(exchange(other_session, credentials("b", "secret")), Err(HandshakeError::Proof));
}

#[test]
fn a_listener_that_does_not_know_the_secret_cannot_answer() {
    let (dialer, first) = Dialer::start(credentials("a", "secret"), [1; NONCE_BYTES]);
    let (_, challenge) = Listener::start(credentials("b", "guess"), [2; NONCE_BYTES], &first).expect("well-formed");
    let (dialer, proof) = dialer.challenged(&challenge).expect("well-formed");
    // All that the impostor has is what the dialer said.
    assert_eq!(dialer.proved(&proof), Err(HandshakeError::Proof));
}

#[test]
fn a_proof_sent_back_to_its_maker_proves_nothing() {
    // The impostor opens a second connection to the dialer's own listener and gives it the dialer's words.
    let (dialer, first) = Dialer::start(credentials("a", "secret"), [1; NONCE_BYTES]);
    let own = Listener::start(credentials("a", "secret"), [3; NONCE_BYTES], &first).expect("well-formed");
    let (listener, challenge) = own;
    let (_, proof) = dialer.challenged(&challenge).expect("well-formed");
    let (_, listener_proof) = listener.proved(&proof).expect("honest so far: it is the dialer's own secret");
    // Neither proof serves in the other role.
    let (_, first) = Dialer::start(credentials("a", "secret"), [1; NONCE_BYTES]);
    let (again, _) = Listener::start(credentials("a", "secret"), [3; NONCE_BYTES], &first).expect("well-formed");
    assert_eq!(again.proved(&listener_proof).map(|_| ()), Err(HandshakeError::Proof));
}

#[test]
fn a_nonce_sent_back_is_a_reflection() {
    let (dialer, first) = Dialer::start(credentials("a", "secret"), [1; NONCE_BYTES]);
    let same = Listener::start(credentials("b", "secret"), [1; NONCE_BYTES], &first).map(|_| ());
    assert_eq!(same, Err(HandshakeError::Reflection));
    let challenge = [&first[..NONCE_BYTES], b"\x01b"].concat();
    assert_eq!(dialer.challenged(&challenge).map(|_| ()), Err(HandshakeError::Reflection));
}

#[test]
fn an_old_proof_does_not_fit_a_new_challenge() {
    let (dialer, first) = Dialer::start(credentials("a", "secret"), [1; NONCE_BYTES]);
    let (_, challenge) = Listener::start(credentials("b", "secret"), [2; NONCE_BYTES], &first).expect("well-formed");
    let (_, old) = dialer.challenged(&challenge).expect("well-formed");
    let (fresh, _) = Listener::start(credentials("b", "secret"), [4; NONCE_BYTES], &first).expect("well-formed");
    assert_eq!(fresh.proved(&old).map(|_| ()), Err(HandshakeError::Proof));
}

#[test]
fn every_changed_or_missing_byte_is_refused() {
    let start = || Dialer::start(credentials("node-a", "secret"), [1; NONCE_BYTES]);
    let listen = |first: &[u8]| Listener::start(credentials("node-b", "secret"), [2; NONCE_BYTES], first);
    let (_, first) = start();
    for length in 0..first.len() {
        assert!(listen(&first[..length]).is_err(), "{length} bytes");
    }
    for at in 0..first.len() {
        let mut changed = first.to_vec();
        changed[at] ^= 0x20;
        let (dialer, _) = start();
        // What is still well-formed gives another transcript.
        let proved = listen(&changed).and_then(|(listener, challenge)| {
            let (_, proof) = dialer.challenged(&challenge)?;
            listener.proved(&proof).map(|_| ())
        });
        assert!(proved.is_err(), "byte {at}");
    }
}

#[test]
fn names_that_would_garble_a_log_are_malformed() {
    let message = |name: &[u8]| {
        let length = [name.len() as u8];
        [&[9; NONCE_BYTES][..], b"\x04shop", &length, name].concat()
    };
    let listen = |first: &[u8]| Listener::start(credentials("b", "secret"), [2; NONCE_BYTES], first).map(|_| ());
    assert_eq!(listen(&message(b"fine")), Ok(()));
    for name in [&b""[..], b"two\nlines", b"\xff", &[b'x'; 129]] {
        assert_eq!(listen(&message(name)), Err(HandshakeError::Malformed), "{name:?}");
    }
}
