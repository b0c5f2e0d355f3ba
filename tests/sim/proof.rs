//! Many seeds, one seed twice, one seed shown, and every planted bug.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::bugs::{BUGS, Bug};
use crate::checkers::Violation;
use crate::control::trouble::CONTROL_FAULTS;
use crate::faults::{FAULTS, Fault, Tally};
use crate::world::{Outcome, World};

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

fn run(seed: u64, bug: Option<Bug>) -> Result<Outcome, Violation> {
    let mut world = World::new(seed);
    world.bug = bug;
    // A core that finds itself in a state that cannot be panics: that is noticed too.
    catch_unwind(AssertUnwindSafe(|| world.run())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
        Err(Violation { rule: "panic", text })
    })
}

fn replay_command(seed: u64) -> String {
    format!("HOLDFAST_SIM_SEED={seed} cargo test --release --test sim replay -- --nocapture")
}

#[test]
fn i1_to_i6_hold_whatever_fails() {
    let first = from_environment("HOLDFAST_SIM_FIRST").unwrap_or(0);
    let seeds = from_environment("HOLDFAST_SIM_SEEDS").unwrap_or(2_000);
    let next = AtomicU64::new(first);
    let sum = Mutex::new((Tally::default(), 0i64, 0i64, Vec::new()));
    #[expect(clippy::disallowed_methods, reason = "measures how fast simulated time passes")]
    let started = std::time::Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        return;
                    }
                    let outcome = run(seed, None);
                    let mut sum = sum.lock().expect("nobody panics with it");
                    match outcome {
                        Ok(outcome) => {
                            sum.0.add(&outcome.tally);
                            sum.1 += outcome.simulated_ms;
                            sum.2 = sum.2.max(outcome.restored_after_ms);
                        }
                        Err(violation) => sum.3.push((seed, violation)),
                    }
                }
            });
        }
    });
    let seconds = started.elapsed().as_secs_f64();
    let (tally, simulated_ms, longest_ms, mut broken) = sum.into_inner().expect("nobody panicked with it");
    let speed = simulated_ms as f64 / 1_000.0 / seconds / threads as f64;
    println!(
        "{seeds} seeds, {} simulated seconds in {seconds:.1} s on {threads} threads: {speed:.0} a second and thread; all \
         exact again after {longest_ms} ms at most\n{tally:?}",
        simulated_ms / 1_000
    );
    broken.sort_unstable_by_key(|(seed, _)| *seed);
    for (seed, violation) in broken.iter().take(5) {
        println!("seed {seed} broke {}: {}\n  {}", violation.rule, violation.text, replay_command(*seed));
    }
    assert!(
        broken.is_empty(),
        "{} of {seeds} seeds broke a rule, the first by\n  {}",
        broken.len(),
        replay_command(broken[0].0)
    );
    if seeds >= 500 {
        assert_everything_was_hit(&tally, seeds);
    }
}

/// A simulation in which nothing happens proves nothing.
fn assert_everything_was_hit(tally: &Tally, seeds: u64) {
    const OF_MESSAGES: [Fault; 9] = [
        Fault::RequestLost,
        Fault::RequestLate,
        Fault::AnswerLost,
        Fault::InFlightLost,
        Fault::PushLost,
        Fault::PushDoubled,
        Fault::PushDelayed,
        Fault::OfferLost,
        Fault::OfferAnswerLost,
    ];
    for fault in FAULTS.iter().chain(&OF_MESSAGES).chain(CONTROL_FAULTS) {
        assert!(
            tally.faults.get(fault).is_some_and(|times| *times > seeds / 10),
            "{fault:?} hardly happened: {tally:?}"
        );
    }
    for by in ["local", "cache", "hot"] {
        assert!(tally.served_by.get(by).is_some_and(|times| *times > seeds), "{by} hardly served: {tally:?}");
    }
    assert!(tally.exact * 3 > tally.answers && tally.exact < tally.answers, "{tally:?}");
    let rare = [tally.accepted, tally.duplicates, tally.refused, tally.copies, tally.voids, tally.cut_emissions];
    assert!(rare.iter().all(|times| *times > seeds / 2), "{tally:?}");
    assert!(tally.mq_trims > seeds / 10, "{tally:?}");
    let of_masters = [tally.elections, tally.handovers, tally.releases, tally.farewells, tally.moves];
    assert!(of_masters.iter().all(|times| *times > seeds / 10) && tally.restores > seeds / 50, "{tally:?}");
}

#[test]
fn the_same_seed_gives_the_same_run_twice() {
    for seed in [1, 2, 3, 4] {
        let runs = [(); 2].map(|()| run(seed, None).expect("no rule is broken"));
        assert_eq!(runs[0].trace, runs[1].trace, "seed {seed}");
        assert_eq!(runs[0].tally.answers, runs[1].tally.answers);
    }
    assert_ne!(run(1, None).expect("no rule is broken").trace, run(2, None).expect("no rule is broken").trace);
}

/// Shows one run: `HOLDFAST_SIM_SEED=… cargo test --release --test sim replay -- --nocapture`.
#[test]
fn replay() {
    let Some(seed) = from_environment("HOLDFAST_SIM_SEED") else { return };
    let mut world = World::new(seed);
    let name = std::env::var("HOLDFAST_SIM_BUG").unwrap_or_default();
    world.bug = BUGS.into_iter().find(|bug| format!("{bug:?}") == name);
    world.is_told = true;
    match world.run() {
        Ok(outcome) => println!("{outcome:?}"),
        Err(violation) => panic!("{}: {}", violation.rule, violation.text),
    }
}

/// As many seeds as a planted bug may go unnoticed.
const SEEDS_OF_A_BUG: u64 = 300;

#[test]
fn every_planted_bug_is_noticed() {
    let mut unnoticed = Vec::new();
    for bug in BUGS {
        let noticed = (0..SEEDS_OF_A_BUG).find_map(|seed| Some((seed, run(seed, Some(bug)).err()?)));
        match noticed {
            Some((seed, violation)) => println!("{bug:?}: seed {seed} breaks {}: {}", violation.rule, violation.text),
            None => unnoticed.push(bug),
        }
    }
    assert!(unnoticed.is_empty(), "{unnoticed:?} went unnoticed");
}
