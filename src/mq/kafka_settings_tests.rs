//! Which settings are refused, and with what words.

use super::*;

fn settings() -> Settings {
    Settings {
        brokers: vec!["127.0.0.1:9092".into(), "kafka-2.example:9092".into()],
        topic: "holdfast".into(),
        replication: 1,
        retention: Millis(86_400_000 * 2),
        batch_bytes: ByteSize(8 << 20),
        deadline: Millis(5_000),
        publish_deadline: Millis(10_000),
        publish_memory: ByteSize(64 << 20),
        linger: Millis(2),
        prefetch: ByteSize(4 << 20),
        fetch_bytes: ByteSize(16 << 20),
        idle_after: Millis(60_000),
        watch_interval: Millis(100),
        trim_interval: Millis(10_000),
        security: None,
    }
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let broken = |change: fn(&mut Settings)| {
        let mut settings = settings();
        change(&mut settings);
        settings.complaint().map(|(key, _)| key)
    };
    assert_eq!(broken(|_| {}), None);
    assert_eq!(broken(|settings| settings.brokers = vec![]), Some("brokers"));
    for broker in ["", "kafka", "kafka:9092,other:9092", "kafka:9092 other:9092", ":9092", "kafka:0"] {
        let complaint = Settings { brokers: vec![broker.into()], ..settings() }.complaint();
        assert_eq!(complaint.map(|(key, _)| key), Some("brokers"), "{broker}");
    }
    assert_eq!(broken(|settings| settings.topic = "a topic".into()), Some("topic"));
    assert_eq!(broken(|settings| settings.retention = Millis(3_600_000)), Some("retention"));
    assert_eq!(broken(|settings| settings.batch_bytes = ByteSize(200 << 20)), Some("batch_bytes"));
    assert_eq!(broken(|settings| settings.publish_memory = ByteSize(1)), Some("publish_memory"));
    assert_eq!(broken(|settings| settings.publish_deadline = Millis(1)), Some("publish_deadline"));
    assert_eq!(broken(|settings| settings.fetch_bytes = ByteSize(1)), Some("fetch_bytes"));
}

#[test]
fn librdkafka_knows_every_key_that_it_is_given() {
    let settings = settings();
    let client = settings.client(Path::new(".")).expect("nothing is wrong");
    for config in [settings.producer(&client), settings.consumer(&client)] {
        config.create_native_config().expect("librdkafka takes it");
    }
}

#[test]
fn security_comes_with_a_build_that_has_tls_and_never_shows_its_password() {
    let text = r#"
        protocol = "sasl_ssl"
        login = { mechanism = "SCRAM-SHA-512", user = "holdfast", password = "hush" }
    "#;
    let security: Security = toml::from_str(text).expect("it is what the documentation shows");
    assert!(!format!("{security:?}").contains("hush"));
    assert!(!toml::to_string(&security).expect("plain values").contains("hush"));
    let refused = Settings { security: Some(security), ..settings() }.client(Path::new("."));
    match cfg!(feature = "kafka-tls") {
        true => assert!(refused.is_ok()),
        false => assert!(refused.expect_err("no TLS is built in").to_string().contains("--features kafka-tls")),
    }
}
