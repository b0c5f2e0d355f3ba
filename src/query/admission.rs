//! Decides whether a query may start: limits per client and in total. Pure.
//!
//! Invariant: what is admitted is released once; memory is bounded by the number of clients told apart, however many
//! there are.

use hashbrown::HashMap;

use super::settings::Settings;

/// A client as admission tells it apart: a hash of its address or token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientId(pub u64);

/// The one that all clients share for whom there is no room.
const OVERFLOW: ClientId = ClientId(0);

/// How often a full table is searched for clients that need not be remembered.
const SWEEP_EVERY_MS: i64 = 1_000;

/// A whole query, in the unit that the bucket is refilled in: a rate of 1/s gives one thousandth per millisecond.
const WHOLE: u64 = 1_000;

/// Why a query may not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    pub reason: &'static str,
    pub retry_after_ms: u64,
}

#[derive(Debug)]
struct Client {
    /// What is left of the allowance, in thousandths of a query.
    allowance: u64,
    refilled_ms: i64,
    in_flight: u32,
}

/// The limits with what is under way.
#[derive(Debug)]
pub struct Admission {
    rate: u64,
    burst: u64,
    client_in_flight: u32,
    in_flight_limit: u32,
    clients_limit: usize,
    in_flight: u32,
    clients: HashMap<ClientId, Client>,
    swept_ms: i64,
}

impl Admission {
    pub fn new(settings: &Settings) -> Self {
        Self {
            rate: u64::from(settings.rate),
            burst: u64::from(settings.burst.max(1)) * WHOLE,
            client_in_flight: settings.client_in_flight,
            in_flight_limit: settings.in_flight,
            clients_limit: settings.clients,
            in_flight: 0,
            clients: HashMap::new(),
            swept_ms: i64::MIN,
        }
    }

    /// Lets a query start and gives the name under which it must be released.
    pub fn admit(&mut self, client: ClientId, now_ms: i64) -> Result<ClientId, Refusal> {
        if self.in_flight >= self.in_flight_limit {
            return Err(Refusal { reason: "too many queries are under way", retry_after_ms: 100 });
        }
        let name = self.name_of(client, now_ms);
        let (rate, burst) = (self.rate, self.burst);
        let entry = (self.clients.entry(name)).or_insert_with(|| Client {
            allowance: burst,
            refilled_ms: now_ms,
            in_flight: 0,
        });
        if entry.in_flight >= self.client_in_flight {
            return Err(Refusal { reason: "too many queries of this client are under way", retry_after_ms: 100 });
        }
        entry.refill(rate, burst, now_ms);
        if entry.allowance < WHOLE {
            let retry_after_ms = (WHOLE - entry.allowance).div_ceil(rate.max(1));
            return Err(Refusal { reason: "this client sends more queries than its rate allows", retry_after_ms });
        }
        entry.allowance -= WHOLE;
        entry.in_flight += 1;
        self.in_flight += 1;
        Ok(name)
    }

    pub fn release(&mut self, name: ClientId) {
        let client = self.clients.get_mut(&name).expect("a client with a query under way is remembered");
        assert!(client.in_flight > 0 && self.in_flight > 0, "released more often than admitted");
        client.in_flight -= 1;
        self.in_flight -= 1;
    }

    /// Queries under way.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    fn name_of(&mut self, client: ClientId, now_ms: i64) -> ClientId {
        if self.clients.contains_key(&client) || self.clients.len() < self.clients_limit {
            return client;
        }
        // Seldom: else a crowd of clients would make each rejection search the whole table.
        if now_ms.saturating_sub(self.swept_ms) >= SWEEP_EVERY_MS {
            self.swept_ms = now_ms;
            let (rate, burst) = (self.rate, self.burst);
            self.clients.retain(|_, client| {
                client.refill(rate, burst, now_ms);
                client.in_flight > 0 || client.allowance < burst
            });
        }
        if self.clients.len() < self.clients_limit { client } else { OVERFLOW }
    }
}

impl Client {
    fn refill(&mut self, rate: u64, burst: u64, now_ms: i64) {
        let elapsed_ms = u64::try_from(now_ms.saturating_sub(self.refilled_ms)).unwrap_or(0);
        self.allowance = self.allowance.saturating_add(elapsed_ms.saturating_mul(rate)).min(burst);
        self.refilled_ms = now_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(change: impl FnOnce(&mut Settings)) -> Admission {
        let mut settings = Settings::for_tests();
        change(&mut settings);
        Admission::new(&settings)
    }

    #[test]
    fn a_client_may_burst_and_then_goes_on_at_its_rate() {
        let mut admission = admission(|s| (s.rate, s.burst) = (10, 3));
        let client = ClientId(1);
        for _ in 0..3 {
            let name = admission.admit(client, 0).expect("within the burst");
            admission.release(name);
        }
        assert_eq!(admission.admit(client, 0).map_err(|r| r.retry_after_ms), Err(100));
        assert!(admission.admit(ClientId(2), 0).is_ok(), "another client has its own allowance");
        assert!(admission.admit(client, 99).is_err());
        assert!(admission.admit(client, 100).is_ok());
        assert!(admission.admit(client, 100).is_err());
    }

    #[test]
    fn queries_under_way_are_limited_per_client_and_in_total() {
        let mut admission = admission(|s| (s.client_in_flight, s.in_flight) = (2, 3));
        let first = admission.admit(ClientId(1), 0).expect("one");
        admission.admit(ClientId(1), 0).expect("two");
        assert!(admission.admit(ClientId(1), 0).is_err());
        admission.admit(ClientId(2), 0).expect("three");
        assert!(admission.admit(ClientId(3), 0).is_err());
        admission.release(first);
        assert!(admission.admit(ClientId(3), 0).is_ok());
        assert_eq!(admission.in_flight(), 3);
    }

    #[test]
    fn i6_clients_beyond_the_limit_share_one_allowance_and_are_not_remembered() {
        let mut admission = admission(|s| (s.clients, s.rate, s.burst) = (10, 1, 1));
        for id in 1..=10_000 {
            if let Ok(name) = admission.admit(ClientId(id), 0) {
                admission.release(name);
            }
        }
        assert!(admission.clients.len() <= 11, "{}", admission.clients.len());
        // Once the remembered ones have been silent long enough, there is room again.
        let name = admission.admit(ClientId(77_777), 5_000).expect("idle clients are forgotten");
        assert_eq!(name, ClientId(77_777));
    }
}
