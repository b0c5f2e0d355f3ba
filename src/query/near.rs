//! Finds the names that somebody may have meant.
//!
//! Invariant: few names are given, the nearest first.

/// How many names are shown.
const SHOWN: usize = 5;

/// The known names nearest to `name`; if none is near, the first known ones.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = name.to_ascii_lowercase();
    let mut ranked: Vec<(usize, &str)> = known.map(|one| (distance(&wanted, &one.to_ascii_lowercase()), one)).collect();
    ranked.sort();
    let near = |(distance, one): &(usize, &str)| *distance <= one.len().max(wanted.len()) / 3 + 1;
    if ranked.first().is_some_and(near) {
        ranked.retain(near);
    }
    ranked.into_iter().map(|(_, one)| one).take(SHOWN).collect()
}

/// Insertions, deletions and replacements from one to the other; only the beginnings of long names count.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, one) in a.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, two) in b.iter().enumerate() {
            let replaced = corner + usize::from(one != two);
            corner = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_names_come_first_and_all_if_none_is_near() {
        let known = ["gmv_hour", "gmv_day", "flights_hour"];
        assert_eq!(nearest("gmv_hours", known.into_iter()), ["gmv_hour"]);
        assert_eq!(nearest("GMV_dya", known.into_iter()), ["gmv_day"]);
        assert_eq!(nearest("x", known.into_iter()).len(), 3);
        assert_eq!((distance("kitten", "sitting"), distance("", "abc")), (3, 3));
    }
}
