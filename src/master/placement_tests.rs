use proptest::prelude::*;

use super::*;

fn nodes(count: usize) -> Vec<Candidate<'static>> {
    vec![Candidate { host: None, weight: 100 }; count]
}

fn counts(placed: &[Placed], nodes: usize) -> Vec<usize> {
    let mut counts = vec![0; nodes];
    placed.iter().for_each(|it| counts[it.owner.expect("there are nodes")] += 1);
    counts
}

/// The works as they are once `placed` is in effect.
fn settled(works: &[Work], placed: &[Placed]) -> Vec<Work> {
    works.iter().zip(placed).map(|(work, it)| Work { owner: it.owner, standby: it.standby, ..*work }).collect()
}

fn fresh(count: usize) -> Vec<Work> {
    vec![Work { weight: 1, owner: None, standby: None, wants_standby: true }; count]
}

fn moved(works: &[Work], placed: &[Placed]) -> usize {
    works.iter().zip(placed).filter(|(work, it)| work.owner.is_some() && work.owner != it.owner).count()
}

#[test]
fn a_joining_node_gets_its_share_and_nothing_else_moves() {
    let works = settled(&fresh(64), &place(&nodes(3), &fresh(64), 0));
    let placed = place(&nodes(4), &works, 0);
    assert_eq!(counts(&placed, 4), [16, 16, 16, 16]);
    assert_eq!(moved(&works, &placed), 16);
    // Its tasks' former owners stand by for them: they have the state.
    let taken = works.iter().zip(&placed).filter(|(work, it)| work.owner != it.owner);
    let ready = taken.filter(|(work, it)| work.owner == it.standby).count();
    assert!(ready >= 12, "{ready}");
}

#[test]
fn tasks_of_a_lost_node_go_to_their_standbys() {
    let works = settled(&fresh(60), &place(&nodes(5), &fresh(60), 0));
    let lose = |work: &Work| Work {
        owner: work.owner.filter(|owner| *owner != 4),
        standby: work.standby.filter(|standby| *standby != 4),
        ..*work
    };
    let left: Vec<Work> = works.iter().map(lose).collect();
    let placed = place(&nodes(4), &left, 0);
    assert_eq!(counts(&placed, 4), [15, 15, 15, 15]);
    assert_eq!(moved(&left, &placed), 0);
    let homeless = left.iter().zip(&placed).filter(|(work, _)| work.owner.is_none());
    let taken_over = homeless.filter(|(work, it)| work.standby == it.owner).count();
    assert!(taken_over >= 10, "{taken_over} of 12");
}

#[test]
fn heavier_nodes_get_more_and_slack_is_left_alone() {
    let uneven = [Candidate { host: None, weight: 300 }, Candidate { host: None, weight: 100 }];
    assert_eq!(counts(&place(&uneven, &fresh(40), 0), 2), [30, 10]);
    let mut works = settled(&fresh(40), &place(&nodes(2), &fresh(40), 0));
    let first = works.iter().position(|work| work.owner == Some(0)).expect("half of them");
    works[first].owner = Some(1);
    assert_eq!(moved(&works, &place(&nodes(2), &works, 10)), 0);
    assert_eq!(moved(&works, &place(&nodes(2), &works, 0)), 1);
}

#[test]
fn one_node_has_everything_and_no_standby_and_none_has_nothing() {
    assert!(place(&nodes(1), &fresh(3), 0).iter().all(|it| *it == Placed { owner: Some(0), standby: None }));
    assert_eq!(place(&[], &fresh(2), 0), [Placed::default(); 2]);
}

#[test]
fn standbys_of_one_owner_are_spread() {
    let placed = place(&nodes(10), &fresh(900), 0);
    for owner in 0..10 {
        let mut standbys = vec![0; 10];
        placed
            .iter()
            .filter(|it| it.owner == Some(owner))
            .for_each(|it| standbys[it.standby.expect("nine others")] += 1);
        assert!(standbys.iter().all(|count| *count <= 20), "of {owner}: {standbys:?}");
    }
}

#[test]
fn a_large_cluster_is_placed_and_rebalanced() {
    let hosts: Vec<String> = (0..50).map(|host| format!("host-{host}")).collect();
    let large: Vec<Candidate<'_>> =
        (0..200).map(|node| Candidate { host: Some(&hosts[node / 4]), weight: 100 }).collect();
    let first = place(&large[..199], &fresh(4_096), 0);
    let works = settled(&fresh(4_096), &first);
    let placed = place(&large, &works, 0);
    let counts = counts(&placed, 200);
    assert!(counts.iter().all(|count| (20..=21).contains(count)));
    assert_eq!(moved(&works, &placed), 20);
}

fn world() -> impl Strategy<Value = (Vec<(u8, u32)>, Vec<Work>)> {
    (1_usize..12, any::<bool>()).prop_flat_map(|(count, even)| {
        let weight = if even { (100_u32..=100).boxed() } else { (1_u32..400).boxed() };
        let load = if even { (1_u64..=1).boxed() } else { (0_u64..1_000).boxed() };
        let node = || prop::option::weighted(0.8, 0..count);
        let work = (load, node(), node(), any::<bool>()).prop_map(|(weight, owner, standby, wants_standby)| Work {
            weight,
            owner,
            standby,
            wants_standby,
        });
        (prop::collection::vec((0_u8..5, weight), count), prop::collection::vec(work, 0..120))
    })
}

proptest! {
    #[test]
    fn every_placement_keeps_the_rules((nodes, works) in world(), slack in prop_oneof![Just(0_u32), Just(10)]) {
        let hosts: Vec<String> = nodes.iter().map(|(host, _)| host.to_string()).collect();
        let candidates: Vec<Candidate<'_>> = nodes
            .iter()
            .zip(&hosts)
            .map(|((host, weight), name)| Candidate { host: (*host > 0).then_some(name), weight: *weight })
            .collect();
        let placed = place(&candidates, &works, slack);
        prop_assert_eq!(placed.len(), works.len());

        // Standbys.
        let numbers = host_numbers(&candidates);
        let hosts_differ = numbers.iter().any(|number| *number != numbers[0]);
        for (work, it) in works.iter().zip(&placed) {
            let owner = it.owner.expect("there are nodes");
            prop_assert_eq!(it.standby.is_some(), work.wants_standby && nodes.len() > 1);
            if let Some(standby) = it.standby {
                prop_assert!(standby != owner && (!hosts_differ || numbers[standby] != numbers[owner]));
            }
        }

        // Balance: no task could move to the least loaded node and leave both less loaded than the first is.
        let mut loads = vec![0_u64; nodes.len()];
        works.iter().zip(&placed).for_each(|(work, it)| loads[it.owner.expect("placed")] += weight_of(work));
        if slack == 0 {
            for (work, it) in works.iter().zip(&placed) {
                let from = it.owner.expect("placed");
                for to in 0..nodes.len() {
                    let after = u128::from(loads[to] + weight_of(work)) * u128::from(nodes[from].1);
                    prop_assert!(to == from
                        || after >= u128::from(loads[from]) * u128::from(nodes[to].1));
                }
            }
        }

        // It stays as it is.
        let again = place(&candidates, &settled(&works, &placed), slack);
        let owners = |placed: &[Placed]| placed.iter().map(|it| it.owner).collect::<Vec<_>>();
        prop_assert_eq!(owners(&again), owners(&placed));
    }

    #[test]
    fn no_more_moves_than_the_excess(owners in prop::collection::vec(prop::option::weighted(0.9, 0_usize..8), 0..200), count in 8_usize..12) {
        let works: Vec<Work> =
            owners.iter().map(|owner| Work { weight: 1, owner: *owner, ..Work::default() }).collect();
        let placed = place(&nodes(count), &works, 0);
        let (least, most) = (works.len() / count, works.len().div_ceil(count));
        prop_assert!(counts(&placed, count).iter().all(|have| (least..=most).contains(have)));
        let mut kept = vec![0_usize; count];
        owners.iter().flatten().for_each(|owner| kept[*owner] += 1);
        let homeless = owners.iter().filter(|owner| owner.is_none()).count();
        let excess: usize = kept.iter().map(|have| have.saturating_sub(most)).sum();
        let deficit: usize = kept.iter().map(|have| least.saturating_sub(*have)).sum();
        prop_assert!(moved(&works, &placed) <= excess.max(deficit.saturating_sub(homeless)));
    }
}
