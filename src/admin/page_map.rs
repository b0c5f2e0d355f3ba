//! The map of partitions on the page: a cell each, and the same as a table. Pure.
//!
//! Invariant: the size of what is drawn is bounded, whatever the number of partitions; a partition that is not as it should
//! be is never hidden behind one that is.

use maud::{Markup, html};

use super::owners::Owners;
use super::page::state;
use super::partitions::{PartitionRow, rows, worst};
use super::view::{ClusterView, Level};
use super::words::{count, duration};

/// Cells of the map; with more partitions one cell stands for some neighbours.
const CELLS_MOST: usize = 1_024;
/// Cells up to this number are large enough for letters.
const LARGE_CELLS: usize = 128;
/// Rows of the table, when there are more partitions; then it has the worst.
const TABLE_MOST: usize = 128;

pub fn partitions(view: &ClusterView) -> Markup {
    let (rows, owners) = (rows(view), Owners::of(view));
    let per_cell = rows.len().div_ceil(CELLS_MOST).max(1);
    let size = if rows.len().div_ceil(per_cell) <= LARGE_CELLS { "map large" } else { "map small" };
    html! {
        p.legend { (summary(&rows)) }
        // The table below says the same to those who cannot see the map.
        ol #map class=(size) tabindex="0" role="group" aria-label="Map of partitions; move with the arrow keys"
            aria-describedby="map-details" {
            @for cell in rows.chunks(per_cell) { (show(&owners, cell)) }
        }
        p #map-details aria-live="polite" {
            "A cell is " @if per_cell == 1 { "a partition" } @else { (per_cell) " partitions" }
            ", its colour and letter the slave that computes it."
        }
        (table(&rows))
    }
}

fn summary(rows: &[PartitionRow<'_>]) -> String {
    let number = |level: Level| rows.iter().filter(|row| row.level == level).count();
    match (number(Level::Warn), number(Level::Bad)) {
        (0, 0) => format!("All {} partitions are computed and published.", rows.len()),
        (warn, 0) => format!("{warn} of {} partitions are on their way back.", rows.len()),
        (warn, bad) => format!("{bad} of {} partitions need attention, {warn} more are on their way back.", rows.len()),
    }
}

fn show(owners: &Owners<'_>, cell: &[PartitionRow<'_>]) -> Markup {
    // The worst of a cell speaks for it.
    let Some(row) = cell.iter().max_by_key(|row| (row.level, std::cmp::Reverse(row.partition))) else {
        return html! {};
    };
    let class = format!("{} {}", owners.colour(row.owner()), row.level.name());
    html! {
        li class=(class) title=(details(cell, row)) {
            i { (row.partition) } b { (row.owner().map(|owner| owners.letters(owner)).unwrap_or_default()) }
            @if !row.sign().is_empty() { u { (row.sign()) } }
        }
    }
}

/// Ages are told only where they matter, so that a cell changes only when something has.
fn details(cell: &[PartitionRow<'_>], row: &PartitionRow<'_>) -> String {
    let mut text = match cell {
        [first, .., last] => {
            format!("Partitions {}–{}, of which the worst is {}: ", first.partition, last.partition, row.partition)
        }
        _ => format!("Partition {}: ", row.partition),
    };
    text.push_str(if row.words.is_empty() { "running" } else { &row.words });
    text.push_str(&format!("; owner {}", row.owner().unwrap_or("none")));
    if let Some(standby) = row.standby() {
        text.push_str(&format!(", standby {standby}"));
    }
    if let Some(task) = row.compute {
        text.push_str(&format!(", epoch {}", task.epoch));
    }
    if row.lag() > 0 {
        text.push_str(&format!(", {} to take", count(row.lag() as f64)));
    }
    text
}

fn table(all: &[PartitionRow<'_>]) -> Markup {
    let is_whole = all.len() <= TABLE_MOST;
    let shown = if is_whole { all.to_vec() } else { worst(all, TABLE_MOST) };
    html! {
        details #partition-table {
            summary {
                @if is_whole { "All partitions as a table" }
                @else { "The " (shown.len()) " partitions that are worst or furthest behind, as a table" }
            }
            @if !is_whole { p.quiet { "All " (all.len()) " are in " a href="/api/v1/cluster" { "the JSON document" } "." } }
            div.wide tabindex="0" role="region" aria-label="Partitions, a table that scrolls" {
                table {
                    caption.hidden { "Partitions with owner, standby, epoch, lag and state" }
                    thead {
                        tr {
                            th.number scope="col" { "Partition" } th scope="col" { "Owner" } th scope="col" { "Standby" }
                            th scope="col" { "Gate" } th.number scope="col" { "Epoch" } th.number scope="col" { "Lag" }
                            th.number scope="col" { "Gaps" } th.number scope="col" { "Results' age" }
                            th scope="col" { "State" }
                        }
                    }
                    tbody { @for row in &shown { (table_row(row)) } }
                }
            }
        }
    }
}

fn table_row(row: &PartitionRow<'_>) -> Markup {
    let gate = row.gate.and_then(|task| task.owner.as_deref());
    let age = match row.age_ms {
        None => "none yet".to_owned(),
        // Seconds, so that not every row changes with every look.
        Some(age_ms) if age_ms < 2_000 => "under 2 s".to_owned(),
        Some(age_ms) => duration(age_ms as f64),
    };
    html! {
        tr {
            th.number scope="row" { (row.partition) }
            td { (row.owner().unwrap_or("none")) }
            td { (row.standby().unwrap_or("–")) }
            td { (gate.unwrap_or("none")) }
            td.number { @if let Some(task) = row.compute { (task.epoch) } }
            td.number { (count(row.lag() as f64)) }
            td.number { (row.gaps()) }
            td.number { (age) }
            td { (state(row.level, if row.words.is_empty() { "running" } else { &row.words })) }
        }
    }
}
