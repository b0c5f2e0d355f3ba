//! Letters and colours for owners, so that the map and the table of nodes can be read together. Pure.
//!
//! Invariant: no two nodes have the same letters; colours repeat and are never needed to tell nodes apart.

use std::collections::HashMap;

use maud::{Markup, html};

use super::view::ClusterView;

/// Colours that the style sheet has.
const COLOURS: usize = 10;

/// Nodes that own tasks of partitions, or could.
pub struct Owners<'a>(HashMap<&'a str, usize>);

impl<'a> Owners<'a> {
    pub fn of(view: &'a ClusterView) -> Self {
        let slaves = view.nodes.iter().filter(|node| node.roles.iter().any(|role| role == "slave"));
        Self(slaves.enumerate().map(|(index, node)| (node.name.as_str(), index)).collect())
    }

    /// A, B, … Z, AA, AB, …; nothing for a node that computes nothing.
    pub fn letters(&self, node: &str) -> String {
        let Some(index) = self.0.get(node) else { return String::new() };
        let (mut rest, mut letters) = (*index, String::new());
        loop {
            letters.insert(0, char::from(b'A' + (rest % 26) as u8));
            if rest < 26 {
                return letters;
            }
            rest = rest / 26 - 1;
        }
    }

    /// The style sheet's class of a node's colour.
    pub fn colour(&self, node: Option<&str>) -> String {
        let index = node.and_then(|node| self.0.get(node));
        index.map_or_else(|| "none".to_owned(), |index| format!("c{}", index % COLOURS))
    }

    /// The letters on their colour.
    pub fn badge(&self, node: &str) -> Markup {
        html! {
            @if self.0.contains_key(node) {
                span class={ "badge " (self.colour(Some(node))) } aria-hidden="true" { (self.letters(node)) }
            } @else {
                span.badge.blank aria-hidden="true" {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_has_its_own_letters() {
        let names: Vec<String> = (0..800).map(|number| format!("node-{number}")).collect();
        let owners = Owners(names.iter().enumerate().map(|(index, name)| (name.as_str(), index)).collect());
        let letters: std::collections::BTreeSet<String> = names.iter().map(|name| owners.letters(name)).collect();
        assert_eq!(letters.len(), 800);
        let of = |index: usize| owners.letters(&names[index]);
        assert_eq!([of(0), of(25), of(26), of(27), of(701), of(702)], ["A", "Z", "AA", "AB", "ZZ", "AAA"]);
        assert_eq!((owners.letters("stranger"), owners.colour(None)), (String::new(), "none".to_owned()));
    }
}
