use super::*;
use proptest::prelude::*;

/// A log that is written event by event, by server 2.
struct Server {
    place: Place,
    events: Vec<(u8, Vec<u8>, u32, u32)>,
}

impl Server {
    fn new(file: u32, before: &[(u32, u64)]) -> Self {
        let mut server = Self { place: Place::new(file, 4), events: Vec::new() };
        server.add(kind::FORMAT_DESCRIPTION, vec![4, 0], 2);
        let mut list = (before.len() as u32).to_le_bytes().to_vec();
        for (server, sequence) in before {
            list.extend([&0u32.to_le_bytes()[..], &server.to_le_bytes(), &sequence.to_le_bytes()].concat());
        }
        server.add(kind::MARIA_GTID_LIST, list, 2);
        server
    }

    fn add(&mut self, kind: u8, body: Vec<u8>, server: u32) {
        self.place.offset += 19 + body.len() as u64 + 4;
        self.events.push((kind, body, server, self.place.offset as u32));
    }

    fn transaction(&mut self, server: u32, sequence: u64) -> Place {
        let start = self.place;
        let mut body = sequence.to_le_bytes().to_vec();
        body.extend_from_slice(&[0; 5]);
        self.add(kind::MARIA_GTID, body, server);
        self.add(kind::TABLE_MAP, vec![0; 9], server);
        self.add(kind::XID, vec![0; 8], server);
        start
    }

    fn find(&self, read: &str) -> Result<Option<Found>, Stop> {
        let read = Gtids::parse_maria(read).expect("a list");
        let file = self.place.file;
        let mut finding = Finding::new(LogName { prefix: "bin".into() }, read, file, self.place);
        for (kind, body, server, end) in &self.events {
            let size = 23 + body.len() as u32;
            let event = Event { kind: *kind, timestamp: 0, server: *server, size, end: *end, flags: 0, body };
            if let Some(found) = finding.read(&event)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

#[test]
fn the_place_is_before_the_first_transaction_that_was_not_read() {
    let mut server = Server::new(2, &[(1, 4)]);
    let begin = server.transaction(1, 5);
    let second = server.transaction(1, 6);
    let third = server.transaction(2, 7);
    assert_eq!(server.find("0-1-3"), Ok(Some(Found::Earlier)));
    assert_eq!(server.find("0-1-4"), Ok(Some(Found::At(begin))));
    assert_eq!(server.find("0-1-5"), Ok(Some(Found::At(second))));
    assert_eq!(server.find("0-1-6"), Ok(Some(Found::At(third))));
    assert_eq!(server.find("0-2-7"), Ok(Some(Found::At(server.place))));
}

#[test]
fn a_server_that_lacks_what_was_read_or_has_something_else_is_refused() {
    let mut server = Server::new(1, &[]);
    server.transaction(1, 1);
    server.transaction(1, 2);
    let stop = server.find("0-1-3").expect_err("it lacks one");
    assert!(stop.kind == StopKind::Server && stop.to_string().contains("up to 0-1-2"), "{stop}");
    server.transaction(2, 3);
    for _ in 0..2 {
        let stop = server.find("0-1-3").expect_err("it has another");
        assert!(stop.kind == StopKind::Unreadable && stop.to_string().contains("another way"), "{stop}");
        server.transaction(2, 4);
    }
    let stop = server.find("0-2-5,1-1-1").expect_err("it has none of the domain 1");
    assert!(stop.kind == StopKind::Server && stop.to_string().contains("log_slave_updates"), "{stop}");
}

proptest! {
    #[test]
    fn no_bytes_panic(events in prop::collection::vec((0u8..176, prop::collection::vec(any::<u8>(), 0..40)), 0..8)) {
        let mut server = Server::new(1, &[]);
        for (kind, body) in events {
            server.add(kind, body, 1);
        }
        let _ = server.find("0-1-3");
    }
}
