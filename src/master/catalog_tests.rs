use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::model::id::PartitionId;
use crate::model::task::Role;

fn name(number: u8) -> NodeName {
    NodeName::new(&format!("n{number}"))
}

fn profile(number: u8, boot: BootId) -> NodeProfile {
    let mut roles = BTreeSet::from([Role::Slave]);
    if number.is_multiple_of(2) {
        roles.insert(Role::Gate);
    }
    NodeProfile { name: name(number), boot, roles, listen: None, http: None, host: None, weight: 100 }
}

fn task(number: u8) -> Task {
    let partition = PartitionId(u16::from(number % 4));
    match number % 3 {
        0 => Task::Gate(partition),
        1 => Task::Compute(partition),
        _ => Task::Archive(i32::from(number)),
    }
}

/// A command in which epochs are told relative to what the catalog has, so that some fit.
#[derive(Debug, Clone)]
enum Draft {
    Plain(Change),
    Assign(Vec<(u8, bool, Option<u8>, Option<u8>)>),
    Lose(u8, BootId, Vec<(u8, bool, Option<u8>, Option<u8>)>),
    Join(u8, BootId, Vec<(u8, bool, Option<u8>, Option<u8>)>),
    End(u8, bool),
    Restore,
}

fn drafts() -> impl Strategy<Value = Vec<(i64, Draft)>> {
    let step =
        || (any::<u8>(), prop::bool::weighted(0.9), prop::option::weighted(0.9, 0_u8..5), prop::option::of(0_u8..5));
    let steps = move || prop::collection::vec(step(), 0..6);
    let node = || 0_u8..5;
    let boot = || 0_u64..3;
    let state =
        prop_oneof![Just(NodeState::Alive), Just(NodeState::Suspect), Just(NodeState::Lost), Just(NodeState::Draining)];
    let tier = prop::sample::select(Tier::ALL.to_vec());
    let mode = prop::sample::select(vec![Mode::Normal, Mode::Degraded, Mode::Recovering]);
    let policy =
        prop_oneof![Just(Policy::Auto), mode.clone().prop_map(Policy::Hold), (0_i64..200).prop_map(Policy::DrillUntil)];
    let kind = prop::sample::select(vec![IncidentKind::Gap, IncidentKind::NodeLost, IncidentKind::TierHeld]);
    let subject = "[a-c]{1,2}";
    let draft = prop_oneof![
        4 => (node(), boot(), steps()).prop_map(|(node, boot, steps)| Draft::Join(node, boot, steps)),
        6 => steps().prop_map(Draft::Assign),
        2 => (node(), boot(), steps()).prop_map(|(node, boot, steps)| Draft::Lose(node, boot, steps)),
        1 => (any::<u8>(), prop::bool::weighted(0.8)).prop_map(|(task, fits)| Draft::End(task, fits)),
        1 => Just(Draft::Restore),
        1 => (node(), boot(), state)
            .prop_map(|(node, boot, state)| Draft::Plain(Change::NodeStates(vec![(name(node), boot, state)]))),
        1 => (node(), any::<bool>())
            .prop_map(|(node, draining)| Draft::Plain(Change::DrainNode { node: name(node), draining })),
        1 => node().prop_map(|node| Draft::Plain(Change::ForgetNode { node: name(node) })),
        1 => (tier.clone(), mode)
            .prop_map(|(tier, mode)| Draft::Plain(Change::SetMode { tier, mode, reason: "reported".into() })),
        1 => (tier, policy)
            .prop_map(|(tier, policy)| Draft::Plain(Change::SetPolicy { tier, policy, reason: "asked".into() })),
        1 => (0_u64..3).prop_map(|fingerprint| Draft::Plain(Change::Define { fingerprint })),
        1 => (kind.clone(), subject)
            .prop_map(|(kind, subject)| Draft::Plain(Change::OpenIncident { kind, subject, text: "x".into() })),
        1 => (kind, subject).prop_map(|(kind, subject)| Draft::Plain(Change::CloseIncident { kind, subject })),
        1 => Just(Draft::Plain(Change::PassTime)),
    ];
    prop::collection::vec((0_i64..200, draft), 0..60)
}

/// Checks that no epoch is ever given twice; shared by the test of the rule and the test that it can be noticed.
#[derive(Default)]
struct Epochs {
    given: BTreeMap<Epoch, (Task, Option<NodeName>)>,
    highest: BTreeMap<Task, Epoch>,
}

impl Epochs {
    fn check(&mut self, effects: &[Effect]) -> Result<(), String> {
        for effect in effects {
            let Effect::Assigned { task, now, .. } = effect else { continue };
            if now.owner.is_none() {
                continue;
            }
            let holder = (task.clone(), now.owner.clone());
            let before = self.given.entry(now.epoch).or_insert_with(|| holder.clone());
            if *before != holder {
                return Err(format!("epoch {} of {before:?} is given to {holder:?}", now.epoch));
            }
            let highest = self.highest.entry(task.clone()).or_default();
            if *highest > now.epoch {
                return Err(format!("{task}: epoch {} after {highest}", now.epoch));
            }
            *highest = now.epoch;
        }
        Ok(())
    }
}

fn moves(catalog: &Catalog, steps: Vec<(u8, bool, Option<u8>, Option<u8>)>) -> Vec<Move> {
    let step = |(number, fits, owner, standby): (u8, bool, Option<u8>, Option<u8>)| {
        let task = task(number);
        let epoch = catalog.task(&task).map_or(0, |now| now.epoch);
        Move { task, expect: if fits { epoch } else { epoch + 1 }, owner: owner.map(name), standby: standby.map(name) }
    };
    steps.into_iter().map(step).collect()
}

fn change(catalog: &Catalog, draft: Draft) -> Option<Change> {
    Some(match draft {
        Draft::Plain(change) => change,
        Draft::Assign(steps) => Change::Assign(moves(catalog, steps)),
        Draft::Lose(node, boot, steps) => {
            Change::NodeLost { node: name(node), boot, reason: "silent".into(), moves: moves(catalog, steps) }
        }
        Draft::Join(node, boot, steps) => Change::JoinNode { node: profile(node, boot), moves: moves(catalog, steps) },
        Draft::End(number, fits) => {
            let task = task(number);
            let epoch = catalog.task(&task).map_or(0, |now| now.epoch) + u64::from(!fits);
            Change::EndTask { task, epoch }
        }
        Draft::Restore => return None,
    })
}

/// Applies all, with `restore` in the place of a snapshot's way through bytes.
fn run(drafts: Vec<(i64, Draft)>, restore: impl Fn(Catalog) -> Catalog) -> Result<Catalog, String> {
    let (mut catalog, mut epochs) = (Catalog::default(), Epochs::default());
    for (at_ms, draft) in drafts {
        match change(&catalog, draft) {
            None => catalog = restore(catalog),
            Some(change) => {
                let mut twin = Catalog::decode(&catalog.encode()).map_err(|error| error.to_string())?;
                let command = Command { at_ms, change };
                let decoded = Command::decode(&command.encode()).map_err(|error| error.to_string())?;
                let effects = catalog.apply(command);
                if twin.apply(decoded) != effects || twin != catalog {
                    return Err("a master restored from a snapshot comes to another catalog".into());
                }
                epochs.check(&effects)?;
            }
        }
        catalog.assert_sound();
    }
    Ok(catalog)
}

proptest! {
    #[test]
    fn any_commands_leave_a_sound_catalog_and_never_give_an_epoch_twice(drafts in drafts()) {
        let result = run(drafts, |catalog| Catalog::decode(&catalog.encode()).expect("what was encoded"));
        prop_assert!(result.is_ok(), "{:?}", result);
    }
}

#[test]
fn an_epoch_given_twice_is_noticed() {
    // The last epoch worked out from the tasks that are there, instead of remembered.
    let forgetful = |mut catalog: Catalog| {
        catalog.last_epoch = catalog.tasks.values().map(|assignment| assignment.epoch).max().unwrap_or(0);
        catalog
    };
    let join = (1, Draft::Join(0, 1, vec![(0, true, Some(0), None)]));
    let drafts =
        vec![join, (2, Draft::End(0, true)), (3, Draft::Restore), (4, Draft::Assign(vec![(3, true, Some(0), None)]))];
    assert!(run(drafts.clone(), forgetful).is_err());
    assert!(run(drafts, |catalog| catalog).is_ok());
}

fn at(at_ms: i64, change: Change) -> Command {
    Command { at_ms, change }
}

fn hold(policy: Policy) -> Change {
    Change::SetPolicy { tier: Tier::Kv, policy, reason: "asked".into() }
}

fn report(mode: Mode) -> Change {
    Change::SetMode { tier: Tier::Kv, mode, reason: "three nodes cannot reach it".into() }
}

#[test]
fn a_drill_degrades_a_tier_for_its_time_and_reports_do_not_matter_meanwhile() {
    let mut catalog = Catalog::default();
    catalog.apply(at(1_000, hold(Policy::DrillUntil(31_000))));
    assert_eq!((catalog.tier(Tier::Kv).mode, catalog.next_end_ms()), (Mode::Degraded, Some(31_000)));
    assert!(matches!(catalog.apply(at(2_000, report(Mode::Normal)))[..], [Effect::Nothing { .. }]));
    assert!(catalog.apply(at(30_999, Change::PassTime)).is_empty());
    let effects = catalog.apply(at(31_000, Change::PassTime));
    let policy = Policy::Auto;
    assert_eq!(effects[0], Effect::ModeIs { tier: Tier::Kv, mode: Mode::Recovering, policy });
    catalog.apply(at(32_000, report(Mode::Normal)));
    assert_eq!((catalog.tier(Tier::Kv).mode, catalog.incidents().open().count()), (Mode::Normal, 0));
    assert_eq!(catalog.incidents().past().count(), 2);
}

#[test]
fn a_hold_lasts_until_it_is_given_back() {
    let mut catalog = Catalog::default();
    catalog.apply(at(1, hold(Policy::Hold(Mode::Normal))));
    catalog.apply(at(2, report(Mode::Degraded)));
    assert_eq!(catalog.tier(Tier::Kv).mode, Mode::Normal);
    catalog.apply(at(3, hold(Policy::Auto)));
    catalog.apply(at(4, report(Mode::Degraded)));
    assert_eq!(catalog.tier(Tier::Kv).mode, Mode::Degraded);
}

#[test]
fn time_does_not_go_back_with_a_new_active_masters_clock() {
    let mut catalog = Catalog::default();
    catalog.apply(at(1_000, hold(Policy::DrillUntil(5_000))));
    catalog.apply(at(6_000, Change::PassTime));
    catalog.apply(at(500, report(Mode::Degraded)));
    assert_eq!(catalog.tier(Tier::Kv).since_ms, 6_000);
}

#[test]
fn a_plan_that_has_passed_changes_nothing() {
    let mut catalog = Catalog::default();
    catalog.apply(at(1, Change::JoinNode { node: profile(0, 1), moves: vec![] }));
    catalog.apply(at(1, Change::JoinNode { node: profile(2, 1), moves: vec![] }));
    let step = |expect, owner| Move { task: task(0), expect, owner: Some(name(owner)), standby: None };
    catalog.apply(at(2, Change::Assign(vec![step(0, 0)])));
    assert!(matches!(catalog.apply(at(3, Change::Assign(vec![step(0, 2)])))[..], [Effect::Nothing { .. }]));
    let effects = catalog.apply(at(4, Change::Assign(vec![step(1, 2)])));
    let before = Some(Assignment { owner: Some(name(0)), standby: None, epoch: 1 });
    let now = Assignment { owner: Some(name(2)), standby: None, epoch: 2 };
    assert_eq!(effects, [Effect::Assigned { task: task(0), now, before }]);
}

#[test]
fn i6_nodes_that_never_come_back_make_room_for_others() {
    let mut catalog = Catalog::default();
    for number in 0..NODES_MOST + 10 {
        let node = NodeName::new(&format!("node-{number}"));
        let profile = NodeProfile { name: node.clone(), ..profile(0, 1) };
        catalog.apply(at(number as i64, Change::JoinNode { node: profile, moves: vec![] }));
        let lost = Change::NodeLost { node, boot: 1, reason: String::new(), moves: vec![] };
        catalog.apply(at(number as i64, lost));
    }
    catalog.assert_sound();
    assert_eq!(catalog.nodes().count(), NODES_MOST);
    assert!(catalog.node(&NodeName::new("node-3")).is_none() && catalog.node(&NodeName::new("node-1030")).is_some());
}

#[test]
fn a_checkpoint_moves_by_the_assignment_in_force_and_survives_with_the_catalog() {
    let mut catalog = Catalog::default();
    let capture = |number| NodeProfile { roles: BTreeSet::from([Role::Capture]), ..profile(number, 1) };
    for number in [0, 2] {
        catalog.apply(at(1, Change::JoinNode { node: capture(number), moves: vec![] }));
    }
    let source: Arc<str> = "shop".into();
    let step =
        |expect, owner| Move { task: Task::Capture(source.clone()), expect, owner: Some(name(owner)), standby: None };
    let save =
        |epoch, state: &'static [u8]| Change::SaveCheckpoint { source: source.clone(), epoch, state: state.into() };
    assert!(matches!(catalog.apply(at(2, save(1, b"early")))[..], [Effect::Nothing { .. }]), "nobody captures yet");
    catalog.apply(at(3, Change::Assign(vec![step(0, 0)])));
    assert_eq!(catalog.apply(at(4, save(1, b"first"))), []);
    catalog.apply(at(5, Change::Assign(vec![step(1, 2)])));
    assert!(matches!(catalog.apply(at(6, save(1, b"late")))[..], [Effect::Nothing { .. }]), "another captures now");
    let catalog = Catalog::decode(&catalog.encode()).expect("what was encoded");
    let kept = catalog.checkpoints().get("shop").expect("the first one's");
    assert_eq!((kept.epoch, &kept.state[..], kept.at_ms), (1, &b"first"[..], 4));
}
