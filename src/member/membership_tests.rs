//! Stories of one node and its masters, and random histories of both.

use proptest::prelude::*;

use super::*;
use crate::model::id::PartitionId;
use crate::model::task::{Assignment, Role};

const ME: &str = "n1";
const BOOT: BootId = 7;
const PACE: Pace = Pace { report_ms: 1_000, reclaim_ms: 4_000 };

fn profile(name: &str, boot: BootId) -> NodeProfile {
    let roles = BTreeSet::from([Role::Slave]);
    NodeProfile { name: NodeName::new(name), boot, roles, listen: None, http: None, host: None, weight: 100 }
}

fn gate(partition: u16) -> Task {
    Task::Gate(PartitionId(partition))
}

fn assigned(owner: &str, epoch: Epoch) -> Assignment {
    Assignment { owner: Some(NodeName::new(owner)), standby: None, epoch }
}

/// A directory that has this process under `boot`, and these owners of gates.
fn directory(version: u64, boot: BootId, owners: &[(&str, Epoch)]) -> Arc<Directory> {
    let nodes = vec![(profile(ME, boot), NodeState::Alive), (profile("n2", 1), NodeState::Alive)];
    let tasks = owners.iter().enumerate().map(|(id, (owner, epoch))| (gate(id as u16), assigned(owner, *epoch)));
    let masters = vec!["m1:1".to_owned(), "m2:1".to_owned()];
    Arc::new(Directory { version, term: 1, nodes, tasks: tasks.collect(), modes: Vec::new(), masters })
}

fn member() -> Membership {
    Membership::new(profile(ME, BOOT), &["m1:1".to_owned(), "m2:1".to_owned()], PACE)
}

fn up(master: u16, connection: u64) -> Input {
    Input::Up { address: format!("m{master}:1"), peer: NodeName::new(&format!("m{master}")), connection }
}

fn heard(master: u16, message: FromMaster) -> Input {
    Input::Heard { from: NodeName::new(&format!("m{master}")), message }
}

fn standing(master: u16, term: u64, is_active: bool) -> Input {
    let master_name = NodeName::new(&format!("m{master}"));
    heard(master, FromMaster::Standing { term, master: master_name, is_active, active: None })
}

fn told(version: u64, boot: BootId, owners: &[(&str, Epoch)]) -> Input {
    heard(1, FromMaster::Directory(directory(version, boot, owners)))
}

fn work(partition: u16, epoch: Epoch) -> Work {
    Work { task: gate(partition), epoch, turn: 0 }
}

/// Connected to the active master, and known.
fn joined() -> Membership {
    let mut member = member();
    member.step(0, up(1, 1));
    member.step(0, standing(1, 1, true));
    member.step(0, told(1, BOOT, &[(ME, 1), ("n2", 2)]));
    member
}

fn sent(effects: &[Effect]) -> Vec<(&str, &FromNode)> {
    let sent = effects.iter().filter_map(|effect| match effect {
        Effect::Send { to, message } => Some((to.as_str(), message)),
        _ => None,
    });
    sent.collect()
}

fn is_hello(message: &FromNode) -> bool {
    matches!(message, FromNode::Hello { .. })
}

#[test]
fn hello_comes_first_on_each_connection_to_the_active_master_and_until_the_directory_has_this_process() {
    let mut member = member();
    assert_eq!(member.step(0, up(1, 1)), []);
    let first = member.step(0, standing(1, 1, true));
    assert!(matches!(&sent(&first)[..], [("m1:1", hello), ("m1:1", FromNode::Beat { .. })] if is_hello(hello)));
    assert!(sent(&member.step(0, Input::Tick)).iter().any(|(_, message)| is_hello(message)), "not known yet");
    // The process before this one is there still: nothing of it is this one's.
    let effects = member.step(0, told(1, BOOT - 1, &[(ME, 1)]));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Run(_) | Effect::Displaced { .. })), "{effects:?}");
    assert!(sent(&member.step(0, Input::Tick)).iter().any(|(_, message)| is_hello(message)));
    let effects = member.step(0, told(2, BOOT, &[(ME, 2)]));
    assert!(effects.contains(&Effect::Run(work(0, 2))), "{effects:?}");
    assert!(!sent(&member.step(0, Input::Tick)).iter().any(|(_, message)| is_hello(message)));
    assert!(sent(&member.step(0, up(1, 2))).iter().any(|(_, message)| is_hello(message)), "another connection");
    member.step(0, up(2, 3));
    let moved = member.step(0, standing(2, 2, true));
    assert!(sent(&moved).iter().any(|(to, message)| *to == "m2:1" && is_hello(message)), "another active master");
}

#[test]
fn a_heartbeat_says_how_far_the_directory_is_and_carries_a_report_once_a_second() {
    let mut member = joined();
    let report = Box::new(NodeReport {
        at_ms: 0,
        started_ms: 0,
        version: String::new(),
        cores: 1,
        load: 0.0,
        resident_bytes: 0,
        rates: Default::default(),
        freshness: Default::default(),
        tasks: Vec::new(),
        tiers: Vec::new(),
    });
    let (mut made, mut carried) = (0, 0);
    for tick in 0..20 {
        let effects = member.step(tick * 200, Input::Tick);
        for (_, message) in sent(&effects) {
            let FromNode::Beat { directory, report, .. } = message else { panic!("{message:?}") };
            assert_eq!(*directory, 1);
            carried += usize::from(report.is_some());
        }
        if effects.contains(&Effect::MakeReport) {
            made += 1;
            member.step(tick * 200, Input::Reported(Some(report.clone())));
        }
    }
    assert_eq!((made, carried), (4, 4));
}

#[test]
fn tasks_are_as_the_newest_directory_says_and_older_ones_change_nothing() {
    let mut member = joined();
    let effects = member.step(0, told(5, BOOT, &[("n2", 3), (ME, 4)]));
    let expected = [Effect::LetGo(work(0, 1), How::Lost), Effect::Run(work(1, 4))];
    assert_eq!(effects[1..], expected);
    assert_eq!(member.step(0, told(4, BOOT, &[(ME, 1), (ME, 4)])), []);
    let effects = member.step(0, told(6, BOOT, &[("n2", 3), (ME, 5)]));
    assert_eq!(effects[1..], [Effect::LetGo(work(1, 4), How::Lost), Effect::Run(work(1, 5))], "another epoch");
}

#[test]
fn i7_without_masters_the_last_assignment_holds() {
    let mut member = joined();
    member.step(0, Input::Down { address: "m1:1".into() });
    for tick in 0..1_000 {
        assert_eq!(member.step(tick * 1_000_000, Input::Tick), []);
    }
}

#[test]
fn a_task_that_is_to_be_handed_over_is_finished_and_then_released() {
    let mut member = joined();
    let release = heard(1, FromMaster::Release { task: gate(0), epoch: 1 });
    assert_eq!(member.step(0, release.clone()), [Effect::LetGo(work(0, 1), How::HandOver)]);
    assert_eq!(member.step(0, release.clone()), [], "it is under way");
    let said = member.step(0, Input::Ended(work(0, 1)));
    assert!(matches!(sent(&said)[..], [(_, FromNode::Released { epoch: 1, .. })]), "{said:?}");
    assert!(matches!(sent(&member.step(0, release))[..], [(_, FromNode::Released { .. })]), "the word was lost");
    assert_eq!(member.step(0, told(2, BOOT, &[("n2", 3), ("n2", 2)])).len(), 1, "only the directory is new");
}

#[test]
fn an_order_is_for_the_assignment_that_it_names() {
    let mut member = joined();
    let order = |epoch| heard(2, FromMaster::Order { task: gate(0), epoch, order: SourceOrder::Pass });
    assert_eq!(member.step(0, order(1)), [Effect::Order(work(0, 1), SourceOrder::Pass)]);
    assert_eq!(member.step(0, order(2)), []);
    member.step(0, heard(1, FromMaster::Release { task: gate(0), epoch: 1 }));
    assert_eq!(member.step(0, order(1)), [], "it is being let go");
}

#[test]
fn what_was_given_back_and_nobody_took_is_taken_up_again() {
    let mut member = joined();
    member.step(0, heard(1, FromMaster::Release { task: gate(0), epoch: 1 }));
    member.step(100, Input::Ended(work(0, 1)));
    let runs = |effects: Vec<Effect>| effects.into_iter().find(|effect| matches!(effect, Effect::Run(_)));
    assert_eq!(runs(member.step(PACE.reclaim_ms, Input::Tick)), None);
    let again = runs(member.step(PACE.reclaim_ms + 100, Input::Tick));
    assert_eq!(again, Some(Effect::Run(Work { turn: 1, ..work(0, 1) })), "its actors need other epochs");
}

#[test]
fn what_was_released_before_it_was_heard_of_is_not_begun() {
    let mut member = joined();
    let said = member.step(0, heard(1, FromMaster::Release { task: gate(1), epoch: 9 }));
    assert!(matches!(sent(&said)[..], [(_, FromNode::Released { epoch: 9, .. })]));
    let effects = member.step(0, told(2, BOOT, &[(ME, 1), (ME, 9)]));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Run(_))), "{effects:?}");
    let again = member.step(PACE.reclaim_ms, Input::Tick);
    assert!(again.contains(&Effect::Run(Work { turn: 1, ..work(1, 9) })), "unless nobody takes it: {again:?}");
    // A master that was deposed, or never was active, is not listened to.
    member.step(0, up(2, 5));
    assert_eq!(member.step(0, heard(2, FromMaster::Release { task: gate(0), epoch: 1 })), []);
}

#[test]
fn what_runs_goes_on_when_a_later_assignment_is_released_before_it_was_heard_of() {
    let mut member = joined();
    let said = member.step(0, heard(1, FromMaster::Release { task: gate(0), epoch: 9 }));
    assert!(matches!(sent(&said)[..], [(_, FromNode::Released { epoch: 9, .. })]) && said.len() == 1, "{said:?}");
    let between = member.step(0, told(2, BOOT, &[(ME, 1), ("n2", 5)]));
    assert_eq!(between.len(), 1, "only the directory is new: {between:?}");
    let effects = member.step(0, told(3, BOOT, &[(ME, 9), ("n2", 5)]));
    assert_eq!(effects[1..], [Effect::LetGo(work(0, 1), How::Lost)]);
}

#[test]
fn a_process_whose_name_another_one_has_stops_and_says_so() {
    let mut member = joined();
    let effects = member.step(0, told(2, BOOT + 1, &[(ME, 3)]));
    assert!(
        effects.contains(&Effect::Displaced { boot: BOOT + 1 })
            && effects.contains(&Effect::LetGo(work(0, 1), How::Lost))
    );
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Run(_) | Effect::Send { .. })), "{effects:?}");
    assert_eq!(member.step(0, Input::Tick), []);
}

#[test]
fn a_leaving_node_is_free_once_nothing_is_its_own() {
    let mut member = joined();
    assert!(matches!(sent(&member.step(0, Input::Leave))[..], [(_, FromNode::Leaving { .. })]));
    let again = member.step(200, Input::Tick);
    assert!(sent(&again).iter().any(|(_, message)| matches!(message, FromNode::Leaving { .. })), "until it is heard");
    member.step(300, heard(1, FromMaster::Release { task: gate(0), epoch: 1 }));
    assert!(!member.step(400, Input::Ended(work(0, 1))).contains(&Effect::FreeToGo), "nobody has it yet");
    let theirs = directory(2, BOOT, &[("n2", 3), ("n2", 2)]);
    let told = |directory| heard(1, FromMaster::Directory(Arc::new(directory)));
    let effects = member.step(500, told(Directory::clone(&theirs)));
    assert!(!effects.contains(&Effect::FreeToGo), "it would pass for lost: nobody has heard yet that it goes");
    let mut known = Directory { version: 3, ..Directory::clone(&theirs) };
    known.nodes[0].1 = NodeState::Draining;
    assert!(member.step(500, told(known)).contains(&Effect::FreeToGo));
    assert!(!member.step(600, Input::Tick).contains(&Effect::FreeToGo), "once");
}

#[test]
fn links_follow_the_set_of_masters_and_whoever_is_said_to_be_active() {
    let mut member = joined();
    let mut next = (*directory(2, BOOT, &[])).clone();
    next.masters = vec!["m1:1".into(), "m3:1".into()];
    let effects = member.step(0, heard(1, FromMaster::Directory(Arc::new(next))));
    let set = |addresses: &[&str]| addresses.iter().map(|address| (*address).to_owned()).collect::<BTreeSet<_>>();
    assert!(effects.contains(&Effect::Dial(set(&["m1:1", "m3:1"]))), "{effects:?}");
    let (master, active) = (NodeName::new("m3"), Some("m4:1".to_owned()));
    let hint = FromMaster::Standing { term: 3, master, is_active: false, active };
    assert_eq!(member.step(0, heard(3, hint)), [Effect::Dial(set(&["m1:1", "m3:1", "m4:1"]))]);
}

// --- random histories ---

const TASKS: u16 = 3;

#[derive(Debug, Clone)]
enum Event {
    Connect {
        master: u16,
    },
    Lose {
        master: u16,
    },
    /// This master becomes active; whether the node hears it depends on its connection.
    Elect {
        master: u16,
    },
    /// The cluster decides: a task's owner changes.
    Move {
        task: u16,
        to_me: bool,
    },
    /// Any directory that there ever was arrives from a master.
    Deliver {
        master: u16,
        age: usize,
    },
    Release {
        master: u16,
        task: u16,
    },
    EndOne,
    Pass {
        ms: i64,
    },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let master = || 1_u16..=3;
    let one = prop_oneof![
        master().prop_map(|master| Event::Connect { master }),
        master().prop_map(|master| Event::Lose { master }),
        master().prop_map(|master| Event::Elect { master }),
        (0..TASKS, any::<bool>()).prop_map(|(task, to_me)| Event::Move { task, to_me }),
        (master(), 0_usize..6).prop_map(|(master, age)| Event::Deliver { master, age }),
        (master(), 0..TASKS).prop_map(|(master, task)| Event::Release { master, task }),
        Just(Event::EndOne),
        (0_i64..5_000).prop_map(|ms| Event::Pass { ms }),
    ];
    proptest::collection::vec(one, 0..120)
}

/// The cluster as it is, and what the node was heard to do.
struct World {
    member: Membership,
    now_ms: i64,
    connections: u64,
    connected: BTreeSet<u16>,
    active: u16,
    term: u64,
    owners: Vec<(&'static str, Epoch)>,
    history: Vec<Arc<Directory>>,
    /// What runs here, with what is being ended.
    running: BTreeSet<Work>,
    ending: Vec<Work>,
    begun: BTreeSet<Epoch>,
}

impl World {
    fn new() -> Self {
        let mut masters = vec!["m1:1".to_owned(), "m2:1".to_owned()];
        masters.push("m3:1".to_owned());
        let owners = vec![("n2", 1); usize::from(TASKS)];
        let mut world = Self {
            member: Membership::new(profile(ME, BOOT), &masters, PACE),
            now_ms: 0,
            connections: 0,
            connected: BTreeSet::new(),
            active: 1,
            term: 1,
            owners,
            history: Vec::new(),
            running: BTreeSet::new(),
            ending: Vec::new(),
            begun: BTreeSet::new(),
        };
        world.decide();
        world
    }

    fn decide(&mut self) {
        let mut next = (*directory(self.history.len() as u64 + 1, BOOT, &self.owners)).clone();
        next.masters.push("m3:1".to_owned());
        self.history.push(Arc::new(next));
    }

    fn input(&mut self, input: Input) {
        for effect in self.member.step(self.now_ms, input) {
            match effect {
                Effect::Run(work) => {
                    assert!(self.begun.insert(work.actor_epoch()), "an epoch is used once: {work:?}");
                    assert!(!self.running.iter().any(|other| other.task == work.task), "one at a time: {work:?}");
                    self.running.insert(work);
                }
                Effect::LetGo(work, _) => {
                    assert!(self.running.remove(&work), "it ran: {work:?}");
                    self.ending.push(work);
                }
                _ => {}
            }
        }
        let known = self.member.directory();
        for Work { task, epoch, .. } in &self.running {
            let assignment = whereabouts::assignment(known, task).expect("only what a directory has");
            assert_eq!((assignment.owner.as_ref(), assignment.epoch), (Some(&NodeName::new(ME)), *epoch));
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Connect { master } => {
                self.connected.insert(master);
                self.connections += 1;
                self.input(up(master, self.connections));
                self.input(standing(master, self.term, master == self.active));
            }
            Event::Lose { master } => {
                if self.connected.remove(&master) {
                    self.input(Input::Down { address: format!("m{master}:1") });
                }
            }
            Event::Elect { master } => {
                (self.active, self.term) = (master, self.term + 1);
                if self.connected.contains(&master) {
                    self.input(standing(master, self.term, true));
                }
            }
            Event::Move { task, to_me } => {
                let epoch = self.owners.iter().map(|(_, epoch)| *epoch).max().unwrap_or(0) + 1;
                self.owners[usize::from(task)] = (if to_me { ME } else { "n2" }, epoch);
                self.decide();
            }
            Event::Deliver { master, age } => {
                if self.connected.contains(&master) {
                    let at = self.history.len().saturating_sub(1 + age);
                    self.input(heard(master, FromMaster::Directory(self.history[at].clone())));
                }
            }
            Event::Release { master, task } => {
                if self.connected.contains(&master) {
                    let epoch = self.owners[usize::from(task)].1;
                    self.input(heard(master, FromMaster::Release { task: gate(task), epoch }));
                }
            }
            Event::EndOne => {
                if let Some(work) = self.ending.pop() {
                    self.input(Input::Ended(work));
                }
            }
            Event::Pass { ms } => {
                self.now_ms += ms;
                self.input(Input::Tick);
            }
        }
    }

    /// The faults are over: what does the node do in the end?
    fn settle(&mut self) {
        self.apply(Event::Connect { master: self.active });
        self.apply(Event::Deliver { master: self.active, age: 0 });
        while !self.ending.is_empty() {
            self.apply(Event::EndOne);
        }
        for _ in 0..2 {
            self.apply(Event::Pass { ms: PACE.reclaim_ms });
        }
        let running: BTreeSet<(Task, Epoch)> =
            self.running.iter().map(|work| (work.task.clone(), work.epoch)).collect();
        let owners = self.owners.iter().enumerate().filter(|(_, (owner, _))| *owner == ME);
        let mine: BTreeSet<(Task, Epoch)> = owners.map(|(id, (_, epoch))| (gate(id as u16), *epoch)).collect();
        assert_eq!(running, mine);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_lost_or_late_nothing_runs_that_a_known_directory_gives_to_another_and_all_follows_in_the_end(
        events in events()
    ) {
        let mut world = World::new();
        events.into_iter().for_each(|event| world.apply(event));
        world.settle();
    }
}
