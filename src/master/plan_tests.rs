use super::*;
use crate::master::command::{Change, Command};
use crate::model::task::BootId;

fn profile(name: &str, boot: BootId) -> NodeProfile {
    NodeProfile {
        name: NodeName::new(name),
        boot,
        roles: [Role::Gate, Role::Slave].into(),
        listen: None,
        http: None,
        host: None,
        weight: 100,
    }
}

fn join(catalog: &mut Catalog, profile: &NodeProfile) {
    let situation = Situation { joining: Some(profile), ..Situation::default() };
    let moves = plan(catalog, &standing_tasks(16, &[]), |_| 1, situation);
    catalog.apply(Command { at_ms: 1, change: Change::JoinNode { node: profile.clone(), moves } });
    catalog.assert_sound();
}

fn owned(catalog: &Catalog, node: &str) -> usize {
    let name = NodeName::new(node);
    catalog.tasks().filter(|(_, it)| it.owner.as_ref() == Some(&name)).count()
}

fn cluster(count: usize) -> Catalog {
    let mut catalog = Catalog::default();
    (0..count).for_each(|node| join(&mut catalog, &profile(&format!("n{node}"), 1)));
    catalog
}

fn next(catalog: &Catalog) -> Vec<Move> {
    plan(catalog, &standing_tasks(16, &[]), |_| 1, Situation::default())
}

#[test]
fn nodes_that_join_get_their_share_in_the_command_that_lets_them_in() {
    let catalog = cluster(4);
    assert_eq!([0, 1, 2, 3].map(|node| owned(&catalog, &format!("n{node}"))), [8; 4]);
    assert!(next(&catalog).is_empty());
    let computes = || catalog.tasks().filter(|(task, _)| task.has_standby());
    assert!(computes().count() == 16 && computes().all(|(_, it)| it.standby.is_some()));
}

#[test]
fn a_lost_node_is_replaced_in_the_command_that_loses_it() {
    let mut catalog = cluster(4);
    let lost = NodeName::new("n2");
    let before: BTreeMap<Task, _> = catalog.tasks().map(|(task, it)| (task.clone(), it.clone())).collect();
    let situation = Situation { lost: std::slice::from_ref(&lost), ..Situation::default() };
    let moves = plan(&catalog, &standing_tasks(16, &[]), |_| 1, situation);
    catalog.apply(Command {
        at_ms: 2,
        change: Change::NodeLost { node: lost.clone(), boot: 1, reason: "x".into(), moves },
    });
    catalog.assert_sound();
    for (task, it) in catalog.tasks() {
        let before = &before[task];
        let had_owner_lost = before.owner.as_ref() == Some(&lost);
        assert!(it.owner.is_some() && it.owner.as_ref() != Some(&lost) && it.standby.as_ref() != Some(&lost));
        assert_eq!(it.epoch > before.epoch, had_owner_lost, "{task}");
    }
    assert!(next(&catalog).is_empty());
}

#[test]
fn another_process_under_the_same_name_gets_new_epochs() {
    let mut catalog = cluster(3);
    let last = catalog.last_epoch();
    join(&mut catalog, &profile("n1", 2));
    let name = NodeName::new("n1");
    let of_it = |it: &&crate::model::task::Assignment| it.owner.as_ref() == Some(&name);
    assert!(catalog.tasks().map(|(_, it)| it).filter(of_it).all(|it| it.epoch > last));
    assert!(catalog.tasks().all(|(_, it)| it.owner.is_some()) && next(&catalog).is_empty());
    // The same process once more changes nothing.
    let before = catalog.last_epoch();
    join(&mut catalog, &profile("n1", 2));
    assert_eq!(catalog.last_epoch(), before);
}

#[test]
fn a_draining_node_gives_everything_away_and_gets_nothing() {
    let mut catalog = cluster(3);
    catalog.apply(Command { at_ms: 3, change: Change::DrainNode { node: NodeName::new("n0"), draining: true } });
    let moves = next(&catalog);
    catalog.apply(Command { at_ms: 4, change: Change::Assign(moves) });
    catalog.assert_sound();
    assert_eq!(catalog.tasks_of(&NodeName::new("n0")).count(), 0);
    assert!(next(&catalog).is_empty());
    join(&mut catalog, &profile("n0", 1));
    assert_eq!(owned(&catalog, "n0"), 0, "the same process is still draining");
}

#[test]
fn the_last_node_keeps_its_tasks_while_it_drains() {
    let mut catalog = cluster(1);
    catalog.apply(Command { at_ms: 3, change: Change::DrainNode { node: NodeName::new("n0"), draining: true } });
    assert!(next(&catalog).is_empty());
    assert_eq!(owned(&catalog, "n0"), 32);
}
