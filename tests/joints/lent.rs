//! A store and one who uses it, joined by sockets on loopback as two processes would be.
//!
//! Invariant: the settings are those of the shipped file, but for what a test is about.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use holdfast::cache::memory::MemoryCache;
use holdfast::clock::Clock;
use holdfast::config::{Config, Layers, Loaded};
use holdfast::hot::memory::MemoryHot;
use holdfast::kv::memory::MemoryKv;
use holdfast::lending::remote_store::RemoteStore;
use holdfast::mq::Mq;
use holdfast::mq::memory::MemoryMq;
use holdfast::mq::remote::RemoteMq;
use holdfast::net::link::{
    Fingerprint, Handler, Identity, Link, Listening, Net, Peer, Refusal, StreamReader, StreamWriter,
};
use holdfast::net::service::{STORE, Services};
use holdfast::net::tcp::TcpNet;
use holdfast::store::lender_service::{Lender, Lent};
use tokio::runtime::{Builder, Handle};

use crate::wait;

/// Timers and connections of all tests.
pub fn runtime() -> &'static Handle {
    static RUNTIME: OnceLock<Handle> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        handle
    })
}

/// Tiers that live as long as the test.
pub fn in_memory(partitions: u16) -> Lent {
    Lent {
        mq: Arc::new(MemoryMq::new(partitions)),
        kv: Arc::new(MemoryKv::new(partitions)),
        hot: Arc::new(MemoryHot::new(partitions)),
        cache: Arc::new(MemoryCache::new(partitions, 256 << 20)),
        partitions,
    }
}

pub fn config() -> Config {
    Loaded::new(Layers::new(None, [])).unwrap().config
}

/// Two nodes: one lends, the other uses.
pub struct Loan {
    config: Config,
    store_net: TcpNet,
    _user_net: TcpNet,
    address: String,
    listening: Mutex<Option<Listening>>,
    pub link: Arc<dyn Link>,
    pub counted: Arc<Counted>,
}

fn net(name: &str, config: &Config, handler: Arc<dyn Handler>) -> TcpNet {
    static BOOTS: AtomicU64 = AtomicU64::new(1);
    let boot = u128::from(BOOTS.fetch_add(1, Ordering::Relaxed));
    let me = Peer { name: name.into(), roles: vec![], addresses: vec![], boot };
    let agreed = Fingerprint::new([("partitions", "4")]);
    let identity = Identity { cluster: "shop".into(), secret: b"secret".to_vec(), agreed, me };
    TcpNet::new(identity, config.net.clone(), ".".as_ref(), Clock::System, handler).unwrap()
}

impl Loan {
    pub fn of(lent: Lent) -> Arc<Self> {
        Self::with(config(), lent)
    }

    pub fn with(config: Config, lent: Lent) -> Arc<Self> {
        let lender = Lender::start(lent, config.store.clone(), config.net.body).unwrap();
        let counted = Arc::new(Counted { lender, calls: AtomicUsize::new(0), streams: AtomicUsize::new(0) });
        let services = Services::default();
        services.set(BTreeMap::from([(STORE, counted.clone() as Arc<dyn Handler>)]));
        let _within = runtime().enter();
        let store_net = net("store", &config, Arc::new(services));
        let user_net = net("user", &config, Arc::new(Services::default()));
        let listening = wait(store_net.listen("127.0.0.1:0")).unwrap();
        let address = listening.address.clone();
        let link = user_net.dial(&address);
        let listening = Mutex::new(Some(listening));
        let loan = Self { config, store_net, _user_net: user_net, address, listening, link, counted };
        loan.until_up();
        Arc::new(loan)
    }

    pub fn until_up(&self) {
        let mut state = self.link.state();
        let up = state.wait_for(|state| state.peer().is_some());
        wait(async { tokio::time::timeout(Duration::from_secs(20), up).await.unwrap().map(drop) }).unwrap();
    }

    /// The store cannot be reached, and its connections end.
    pub fn take_down(&self) {
        self.listening.lock().unwrap().take();
        let mut state = self.link.state();
        let down = state.wait_for(|state| state.peer().is_none());
        wait(async { tokio::time::timeout(Duration::from_secs(20), down).await.unwrap().map(drop) }).unwrap();
    }

    pub fn bring_up(&self) {
        let _within = runtime().enter();
        *self.listening.lock().unwrap() = Some(wait(self.store_net.listen(&self.address)).unwrap());
        self.until_up();
    }

    /// The store as its user has it; keeps both nodes.
    pub fn store(self: &Arc<Self>) -> Arc<RemoteStore> {
        let loan = self.clone();
        let link_to = Arc::new(move || Some(loan.link.clone()));
        RemoteStore::new(link_to, self.config.tiers.remote.clone(), self.config.net.body)
    }

    pub fn mq(self: &Arc<Self>) -> Arc<dyn Mq> {
        let _within = runtime().enter();
        Arc::new(RemoteMq::start(&self.store()))
    }
}

/// Counts what the lender is asked.
pub struct Counted {
    lender: Arc<Lender>,
    pub calls: AtomicUsize,
    pub streams: AtomicUsize,
}

impl Handler for Counted {
    fn call<'a>(&'a self, peer: &'a Peer, service: u16, body: Bytes) -> BoxFuture<'a, Result<Bytes, Refusal>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.lender.call(peer, service, body)
    }

    fn receive<'a>(&'a self, peer: &'a Peer, service: u16, body: Bytes) -> BoxFuture<'a, ()> {
        self.lender.receive(peer, service, body)
    }

    fn stream<'a>(
        &'a self,
        peer: &'a Peer,
        service: u16,
        writer: StreamWriter,
        reader: StreamReader,
    ) -> BoxFuture<'a, ()> {
        self.streams.fetch_add(1, Ordering::Relaxed);
        self.lender.stream(peer, service, writer, reader)
    }
}
