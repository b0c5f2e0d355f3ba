//! Which node does which task. Pure: nodes and tasks in, owners and standbys out, starting from who has what now.
//!
//! Invariant: every task has an owner if there is any node; loads differ by no more than the tasks are coarse (or the slack
//! allows); a task whose owner can keep it moves only to even out loads, and no more of them than that takes. A standby is
//! never its task's owner, nor on the owner's host where there is another host.

use std::collections::{BTreeMap, BTreeSet};

/// A node that may be given tasks.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    pub host: Option<&'a str>,
    /// Its share, in proportion to the others'. Zero counts as one.
    pub weight: u32,
}

/// A task; nodes are indices of the candidates, `None` where there is none, or it may not keep the task.
#[derive(Debug, Clone, Copy, Default)]
pub struct Work {
    pub weight: u64,
    pub owner: Option<usize>,
    pub standby: Option<usize>,
    pub wants_standby: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Placed {
    pub owner: Option<usize>,
    pub standby: Option<usize>,
}

/// One `Placed` for each work. Loads within `slack_percent` of the average are left as they are.
pub fn place(candidates: &[Candidate<'_>], works: &[Work], slack_percent: u32) -> Vec<Placed> {
    if candidates.is_empty() {
        return vec![Placed::default(); works.len()];
    }
    let mut owners = Owners::new(candidates, works);
    owners.give_homeless();
    owners.balance(slack_percent);
    let owner = owners.owner;
    let standby = standbys(candidates, works, &owner);
    owner.into_iter().zip(standby).map(|(owner, standby)| Placed { owner: Some(owner), standby }).collect()
}

/// What a node has.
#[derive(Debug, Clone, Default)]
struct Load {
    /// Its share of everything.
    weight: u64,
    sum: u64,
    /// Tasks by weight: those that moved here anyway, and those that were here.
    moved: BTreeSet<(u64, usize)>,
    kept: BTreeSet<(u64, usize)>,
}

impl Load {
    /// Compares loads as parts of their nodes' weights.
    fn is_less(sum: u64, weight: u64, other: u64, other_weight: u64) -> bool {
        u128::from(sum) * u128::from(other_weight) < u128::from(other) * u128::from(weight)
    }
}

struct Owners<'a> {
    works: &'a [Work],
    nodes: Vec<Load>,
    owner: Vec<usize>,
    homeless: Vec<usize>,
    sum: u64,
    weights: u64,
}

/// Two tasks of no weight would weigh nothing wherever they are.
fn weight_of(work: &Work) -> u64 {
    work.weight.clamp(1, 1 << 40)
}

impl<'a> Owners<'a> {
    fn new(candidates: &[Candidate<'_>], works: &'a [Work]) -> Self {
        let load = |candidate: &Candidate<'_>| Load { weight: u64::from(candidate.weight.max(1)), ..Load::default() };
        let mut nodes: Vec<Load> = candidates.iter().map(load).collect();
        let (mut owner, mut homeless) = (vec![0; works.len()], Vec::new());
        for (index, work) in works.iter().enumerate() {
            match work.owner.filter(|owner| *owner < nodes.len()) {
                None => homeless.push(index),
                Some(node) => {
                    owner[index] = node;
                    nodes[node].sum += weight_of(work);
                    nodes[node].kept.insert((weight_of(work), index));
                }
            }
        }
        // The heaviest first, so that the light ones even out what they leave.
        homeless.sort_by_key(|index| (std::cmp::Reverse(weight_of(&works[*index])), *index));
        let weights = nodes.iter().map(|node| node.weight).sum();
        Self { works, nodes, owner, homeless, sum: works.iter().map(weight_of).sum(), weights }
    }

    /// Tasks without an owner go to their standby, which is ready for them, if it has room; else where there is most room.
    fn give_homeless(&mut self) {
        for index in std::mem::take(&mut self.homeless) {
            let weight = weight_of(&self.works[index]);
            let has_room = |node: &usize| {
                let load = &self.nodes[*node];
                Load::is_less(load.sum, load.weight, self.sum, self.weights)
            };
            let standby = self.works[index].standby.filter(|standby| *standby < self.nodes.len()).filter(has_room);
            let to = standby.unwrap_or_else(|| self.emptiest(weight));
            self.owner[index] = to;
            self.nodes[to].sum += weight;
            self.nodes[to].moved.insert((weight, index));
        }
    }

    /// The node that would be least loaded with `weight` more.
    fn emptiest(&self, weight: u64) -> usize {
        (1..self.nodes.len()).fold(0, |best, node| {
            let (a, b) = (&self.nodes[node], &self.nodes[best]);
            if Load::is_less(a.sum + weight, a.weight, b.sum + weight, b.weight) { node } else { best }
        })
    }

    /// The most loaded node that is not `stuck`; of several, one that can give what moves anyway.
    fn fullest(&self, stuck: &[bool]) -> Option<usize> {
        let rank = |node: usize| (&self.nodes[node], !self.nodes[node].moved.is_empty());
        (0..self.nodes.len()).filter(|node| !stuck[*node]).reduce(|best, node| {
            let ((a, a_moved), (b, b_moved)) = (rank(node), rank(best));
            let more = Load::is_less(b.sum, b.weight, a.sum, a.weight);
            let less = Load::is_less(a.sum, a.weight, b.sum, b.weight);
            if more || (!less && a_moved && !b_moved) { node } else { best }
        })
    }

    /// Moves tasks from the fullest to the emptiest node while that makes the fuller of the two less full.
    fn balance(&mut self, slack_percent: u32) {
        let mut stuck = vec![false; self.nodes.len()];
        // Each move lowers the sum of squared loads; the limit is for weights that make it crawl.
        let mut moves_left = 4 * self.works.len() + 64;
        while moves_left > 0 {
            let Some(from) = self.fullest(&stuck) else { return };
            let to = self.emptiest(0);
            if self.is_within(from, to, slack_percent) {
                return;
            }
            // A small node may be the emptiest and yet have no room, where a larger one has.
            let lightest = self.nodes[from].moved.first().into_iter().chain(self.nodes[from].kept.first()).min();
            let roomiest = lightest.map_or(to, |(weight, _)| self.emptiest(*weight));
            let picked = [to, roomiest].into_iter().find_map(|to| Some((self.pick(from, to)?, to)));
            match picked {
                None => stuck[from] = true,
                Some((index, to)) => {
                    self.shift(index, from, to);
                    stuck.fill(false);
                    moves_left -= 1;
                }
            }
        }
    }

    fn is_within(&self, from: usize, to: usize, slack_percent: u32) -> bool {
        if slack_percent == 0 {
            return from == to;
        }
        let (slack, sum, weights) = (u128::from(slack_percent), u128::from(self.sum), u128::from(self.weights));
        let part = |node: usize| u128::from(self.nodes[node].sum) * weights * 100;
        let share = |node: usize, percent: u128| sum * u128::from(self.nodes[node].weight) * percent;
        part(from) <= share(from, 100 + slack) && part(to) >= share(to, 100_u128.saturating_sub(slack))
    }

    /// The task whose move evens out most.
    fn pick(&self, from: usize, to: usize) -> Option<usize> {
        let (a, b) = (&self.nodes[from], &self.nodes[to]);
        let (a_sum, a_weight) = (u128::from(a.sum), u128::from(a.weight));
        let (b_sum, b_weight) = (u128::from(b.sum), u128::from(b.weight));
        let difference = (a_sum * b_weight).checked_sub(b_sum * a_weight)?;
        // Less than this, or the other one would be as full as this one is.
        let below = u64::try_from(difference.div_ceil(a_weight)).ok()?;
        let most = below.checked_sub(1).filter(|most| *most > 0)?;
        let ideal = u64::try_from(difference / (a_weight + b_weight)).ok()?.clamp(1, most);
        self.nearest(&a.moved, ideal, most, to).or_else(|| self.nearest(&a.kept, ideal, most, to))
    }

    /// The heaviest up to `ideal`, else the lightest up to `most`; of equals one that `to` stands by for.
    fn nearest(&self, tasks: &BTreeSet<(u64, usize)>, ideal: u64, most: u64, to: usize) -> Option<usize> {
        const LOOK_AT: usize = 32;
        let lighter = tasks.range(..=(ideal, usize::MAX)).next_back();
        let heavier = || tasks.range((ideal + 1, 0)..).next().filter(|(weight, _)| *weight <= most);
        let (weight, index) = *lighter.or_else(heavier)?;
        let equals = tasks.range((weight, 0)..=(weight, usize::MAX)).take(LOOK_AT);
        let ready = equals.map(|(_, index)| *index).find(|index| self.works[*index].standby == Some(to));
        Some(ready.unwrap_or(index))
    }

    fn shift(&mut self, index: usize, from: usize, to: usize) {
        let weight = weight_of(&self.works[index]);
        let node = &mut self.nodes[from];
        let was_there = node.moved.remove(&(weight, index)) || node.kept.remove(&(weight, index));
        assert!(was_there, "a task moves from where it is");
        node.sum -= weight;
        self.nodes[to].sum += weight;
        self.nodes[to].moved.insert((weight, index));
        self.owner[index] = to;
    }
}

/// Standbys by number of tasks: what a standby does costs about the same for each.
fn standbys(candidates: &[Candidate<'_>], works: &[Work], owner: &[usize]) -> Vec<Option<usize>> {
    let hosts = host_numbers(candidates);
    let hosts_differ = hosts.iter().any(|host| *host != hosts[0]);
    let is_valid = |node: usize, owner: usize| {
        node < candidates.len() && node != owner && (!hosts_differ || hosts[node] != hosts[owner])
    };
    let weight = |node: usize| u64::from(candidates[node].weight.max(1));
    let weights: u64 = (0..candidates.len()).map(weight).sum();
    let wanted = works.iter().filter(|work| work.wants_standby).count() as u64;
    let most: Vec<u64> = (0..candidates.len()).map(|node| (wanted * weight(node)).div_ceil(weights)).collect();

    let mut counts = vec![0_u64; candidates.len()];
    let mut pairs = vec![0_u32; candidates.len() * candidates.len()];
    let mut standby = vec![None; works.len()];
    let mut open = Vec::new();
    for (index, work) in works.iter().enumerate().filter(|(_, work)| work.wants_standby) {
        // An owner that gave the task away has its state; a standby that there was, too.
        let ready = [work.owner, work.standby].into_iter().flatten();
        let mut ready = ready.filter(|node| is_valid(*node, owner[index]) && counts[*node] < most[*node]);
        match ready.next() {
            None => open.push(index),
            Some(node) => {
                standby[index] = Some(node);
                counts[node] += 1;
                pairs[owner[index] * candidates.len() + node] += 1;
            }
        }
    }
    for index in open {
        // Among those with least to do one that seldom stands by for this owner, so that its loss is spread.
        let owner = owner[index];
        let valid = (0..candidates.len()).filter(|node| is_valid(*node, owner));
        let least = valid.reduce(|best, node| {
            let pair = |node: usize| pairs[owner * candidates.len() + node];
            let ((a, b), (c, d)) = ((counts[node] + 1, weight(node)), (counts[best] + 1, weight(best)));
            let equal = !Load::is_less(a, b, c, d) && !Load::is_less(c, d, a, b);
            if Load::is_less(a, b, c, d) || (equal && pair(node) < pair(best)) { node } else { best }
        });
        if let Some(node) = least {
            standby[index] = Some(node);
            counts[node] += 1;
            pairs[owner * candidates.len() + node] += 1;
        }
    }
    standby
}

/// A number for each host; a node whose host is not known counts as one of its own.
fn host_numbers(candidates: &[Candidate<'_>]) -> Vec<usize> {
    let mut numbers = BTreeMap::new();
    let number = |(index, candidate): (usize, &Candidate<'_>)| match candidate.host {
        None => index,
        Some(host) => *numbers.entry(host.to_owned()).or_insert(index),
    };
    candidates.iter().enumerate().map(number).collect()
}

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;
