//! A task as this process does it.
//!
//! Invariant: no two turns of a task, nor a turn and an actor that is started again in it, have an epoch in common.

use crate::model::id::Epoch;
use crate::model::task::Task;

/// Epochs of actors within one assignment.
pub const EPOCHS_OF_AN_ASSIGNMENT: Epoch = 1_000_000;
/// Times that one assignment is taken up again here.
pub const MOST_TURNS: u32 = 20;

/// A task under one assignment, for the `turn`-th time in this process: a task that was let go and that nobody took may be
/// taken up again under the same epoch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Work {
    pub task: Task,
    pub epoch: Epoch,
    pub turn: u32,
}

impl Work {
    /// For the first actor that does it; those that are started again have the next ones.
    pub fn actor_epoch(&self) -> Epoch {
        let of_a_turn = EPOCHS_OF_AN_ASSIGNMENT / Epoch::from(MOST_TURNS);
        self.epoch * EPOCHS_OF_AN_ASSIGNMENT + Epoch::from(self.turn) * of_a_turn
    }
}

/// Why a task is let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It is to be another's once all is published and saved.
    HandOver,
    /// It is another's already: what this process still writes is refused.
    Lost,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::PartitionId;

    #[test]
    fn later_turns_and_assignments_have_higher_epochs() {
        let work = |epoch, turn| Work { task: Task::Gate(PartitionId(0)), epoch, turn }.actor_epoch();
        assert_eq!((work(3, 0), work(3, 1)), (3_000_000, 3_050_000));
        assert!(work(3, MOST_TURNS - 1) + 10_000 < work(4, 0));
    }
}
