//! Tables as people read them in a terminal.
//!
//! Invariant: numbers stand to the right; nothing is cut off.

/// Where a column's cells stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// Lays out rows under their headings, two spaces apart.
pub fn render(headings: &[(String, Align)], rows: &[Vec<String>]) -> String {
    let width = |text: &str| text.chars().count();
    let mut widths: Vec<usize> = headings.iter().map(|(heading, _)| width(heading)).collect();
    for row in rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = (*widest).max(width(cell));
        }
    }
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let start = text.len();
        for ((cell, (_, align)), widest) in cells.zip(headings).zip(&widths) {
            if text.len() > start {
                text.push_str("  ");
            }
            let pad = " ".repeat(widest - width(cell));
            match align {
                Align::Left => text.extend([cell, &pad]),
                Align::Right => text.extend([&pad, cell]),
            }
        }
        text.truncate(start + text[start..].trim_end().len());
        text.push('\n');
    };
    line(&mut headings.iter().map(|(heading, _)| heading.as_str()));
    let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    line(&mut rules.iter().map(String::as_str));
    for row in rows {
        // A line break in a cell would break the table.
        let cells: Vec<String> = row.iter().map(|cell| cell.replace(['\n', '\r'], " ")).collect();
        line(&mut cells.iter().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let headings = [("channel".to_owned(), Align::Left), ("gmv".to_owned(), Align::Right)];
        let rows = [vec!["größe".into(), "1.50".into()], vec!["a\nb".into(), "12345.00".into()]];
        let expected = "channel       gmv\n-------  --------\ngröße        1.50\na b      12345.00\n";
        assert_eq!(render(&headings, &rows), expected);
    }
}
