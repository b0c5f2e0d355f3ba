//! A busy machine alarms nobody: a minute of `scripts/no-false-alarms`, with processes and timeouts as they are shipped.
//!
//! Invariant: no election, no lost node and no incident, though every core has four busy threads beside the cluster.

use std::process::Command;

#[test]
fn a_busy_minute_alarms_nobody() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/no-false-alarms");
    let run = Command::new(script).args(["--minutes", "1"]).env("HOLDFAST", env!("CARGO_BIN_EXE_holdfast")).output();
    let run = run.expect("the script can be started");
    let (said, complained) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{said}\n{complained}");
    assert!(said.contains("calm for 1 min"), "{said}");
}
