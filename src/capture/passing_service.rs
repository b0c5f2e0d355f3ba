//! What an operator lets pass, noted in the checkpoint.
//!
//! Invariant: what was lost stays a gap: no span ever covers it.

use super::capture_service::CaptureParts;
use super::checkpoint::{Checkpoint, Stage};
use super::mysql;
use super::source_service::{Worker, of_tier};
use super::standing::Passed;
use super::stop::Trouble;

impl Worker {
    /// Notes what an operator let pass.
    pub async fn pass(&mut self, passed: Passed) -> Result<(), Trouble> {
        self.load_again().await;
        let Some(Checkpoint { server, incarnation, stage: Stage::Log(mut log), open }) = self.checkpoint.clone() else {
            return Err(Trouble::Failed("there is no checkpoint in the log".into()));
        };
        let place = match passed {
            Passed::Statement(place) | Passed::Lost(place) | Passed::Purged(place) => place,
        };
        if !matches!(passed, Passed::Purged(_)) && log.position < place.position() {
            return Err(Trouble::Failed("mq does not have all that stands before it yet".into()));
        }
        match passed {
            Passed::Statement(place) => log.passed = place.position(),
            Passed::Lost(place) => {
                // A position that no span ever covers.
                (log.passed, log.position) = (place.position(), place.row(u32::MAX));
            }
            Passed::Purged(place) => (log.resume, log.position) = (place, place.position()),
        }
        let mut conn = self.door.connect().await?;
        if let Passed::Purged(place) = passed {
            // What stands before that place is not what was read.
            let is_maria = mysql::is_maria(&self.check(&mut conn).await?);
            log.gtids = if is_maria { mysql::maria_gtids(&self.door, &mut conn, &log.log, place).await? } else { None };
        }
        log.tables = self.defined(&mut conn).await?;
        let checkpoint = Checkpoint { server, incarnation, stage: Stage::Log(log), open };
        let CaptureParts { source, epoch, checkpoints, .. } = &self.parts;
        checkpoints.save(&source.name, *epoch, checkpoint.clone()).await.map_err(of_tier)?;
        self.checkpoint = Some(checkpoint);
        Ok(())
    }
}
