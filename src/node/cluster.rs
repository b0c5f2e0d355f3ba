//! What a node knows of its cluster: the active master's word, and without one what it has seen itself.
//!
//! Invariant: whoever asks any node gets an answer within a moment; it says from whom it is.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};

use super::observe::Observer;
use crate::admin::admin_state::Masters;
use crate::admin::assembly::About;
use crate::admin::readiness::Readiness;
use crate::admin::view::ClusterView;
use crate::clock::Clock;
use crate::config::Config;
use crate::locks::lock;
use crate::member::member_service::Member;
use crate::model::mode::TierStanding;
use crate::model::task::NodeName;
use crate::net::control::{Answered, Ask, ClusterState, Directory, MasterStatus, NodeStatus};

/// For the active master to say how the cluster is; an election takes less.
const STATE_WITHIN: Duration = Duration::from_millis(1_500);
/// For an operator's decision.
const DECIDED_WITHIN: Duration = Duration::from_secs(8);

/// The cluster, as seen from here.
pub struct Cluster {
    pub me: NodeName,
    pub config: Config,
    pub member: Arc<Member>,
    pub observer: Arc<Observer>,
    pub readiness: Readiness,
    pub clock: Clock,
    /// Since when no active master answers, Unix milliseconds.
    pub alone_since_ms: Mutex<Option<i64>>,
}

impl Cluster {
    /// The cluster's document, as of now.
    pub async fn view(&self) -> ClusterView {
        let state = match self.member.ask(&Ask::State { history_after_ms: 0 }, STATE_WITHIN).await {
            Answered::State(state) => {
                *lock(&self.alone_since_ms) = None;
                *state
            }
            _ => self.own_state().await,
        };
        let now_ms = self.clock.now_ms();
        let no_master_since_ms = state.active.is_none().then(|| *lock(&self.alone_since_ms).get_or_insert(now_ms));
        let about = About {
            name: self.config.cluster.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            timezone: self.config.cluster.timezone.clone(),
            partitions: self.config.cluster.partitions,
            now_ms,
            node: self.me.clone(),
            phase: self.readiness.phase(),
            no_master_since_ms,
        };
        ClusterView::of(&state, about)
    }

    /// The last directory, and this node's own report: all others are not heard.
    async fn own_state(&self) -> ClusterState {
        let report = Arc::new(self.observer.report().await);
        let directory: Arc<Directory> = self.member.directory().borrow().clone();
        let at_ms = self.clock.now_ms();
        let node = |(profile, state): &(_, _)| {
            let profile: &crate::model::task::NodeProfile = profile;
            let is_me = profile.name == self.me;
            NodeStatus {
                profile: profile.clone(),
                state: *state,
                since_ms: report.started_ms,
                heard_ms: is_me.then_some(at_ms),
                report: is_me.then(|| report.clone()),
            }
        };
        let tier = |(tier, mode): &(_, _)| (*tier, TierStanding { mode: *mode, ..TierStanding::default() });
        let master = |(address, id): (&String, u64)| MasterStatus {
            id,
            address: address.clone(),
            node: None,
            is_active: false,
            votes: true,
            reachable: false,
        };
        ClusterState {
            at_ms,
            active: None,
            term: directory.term,
            version: directory.version,
            nodes: directory.nodes.iter().map(node).collect(),
            tasks: directory.tasks.clone(),
            tiers: directory.modes.iter().map(tier).collect(),
            masters: directory.masters.iter().zip(1..).map(master).collect(),
            incidents: Vec::new(),
            history: Vec::new(),
        }
    }
}

/// Carries operators' decisions to the active master.
pub struct Decisions(pub Arc<Member>);

impl Masters for Decisions {
    fn ask(&self, ask: Ask) -> BoxFuture<'static, Answered> {
        let member = self.0.clone();
        async move { member.ask(&ask, DECIDED_WITHIN).await }.boxed()
    }
}
