//! `holdfast doctor`: reaches every tier and source that the configuration names, and says what is wrong and what to do.
//!
//! Invariant: looks with the adapters that nodes use; changes nothing but what a node's start would make (a topic, tables).

use clap::Args;
use futures::future::join_all;

use super::config::File;
use super::failure::{Exit, Failure};
use super::table::{Align, render};
use super::{Outcome, output};
use crate::capture::capture_service::{captured, examine};
use crate::capture::mysql_settings::SourceSettings;
use crate::capture::stop::Trouble;
use crate::clock::Clock;
use crate::config::{Loaded, TierKind};
use crate::node::external::{ExternalError, Externals, Ground};

/// Reach every tier and source of a configuration, and say what is wrong and what to do.
#[derive(Debug, Args)]
pub struct Doctor {
    #[command(flatten)]
    file: File,
}

/// What was found at one place.
struct Finding {
    name: String,
    kind: String,
    place: String,
    /// `Err`: what is wrong.
    state: Result<String, String>,
}

impl Doctor {
    pub async fn run(self) -> Outcome {
        let loaded = self.file.load()?;
        let (tiers, sources) = futures::join!(tiers(&loaded), sources(&loaded));
        let findings: Vec<Finding> = tiers?.into_iter().chain(sources).collect();
        show(&findings)?;
        match findings.iter().filter(|finding| finding.state.is_err()).count() {
            0 => Ok(()),
            _ => Err(Failure { exit: Exit::Failed, message: String::new() }),
        }
    }
}

async fn tiers(loaded: &Loaded) -> Result<Vec<Finding>, Failure> {
    let Loaded { config, catalog, folder } = loaded;
    let ground = Ground { config, catalog, secrets: folder, clock: &Clock::System };
    let wrong = |error: ExternalError| {
        let exit = if error.is_config() { Exit::InvalidConfig } else { Exit::Failed };
        Failure::new(exit, error.to_string())
    };
    let services = Externals::open(&ground).map_err(wrong)?;
    let found = join_all(services.all.iter().map(|service| async move { (service.tier, service.check().await) })).await;
    let finding = |(name, kind): (&str, TierKind)| {
        let service = services.all.iter().find(|service| service.tier.name() == name);
        let place = service.map_or("the node with the role store".to_owned(), |service| service.address.clone());
        let state = match found.iter().find(|(tier, _)| tier.name() == name) {
            Some((_, Err(error))) => Err(error.to_string()),
            Some((_, Ok(()))) => Ok("ok".to_owned()),
            None => Ok("needs no service".to_owned()),
        };
        Finding { name: format!("tier {name}"), kind: kind.name().to_owned(), place, state }
    };
    Ok(config.tiers.kinds().into_iter().map(finding).collect())
}

async fn sources(loaded: &Loaded) -> Vec<Finding> {
    let examined = loaded.config.sources.iter().map(|source| async move {
        let state = look(loaded, source).await;
        Finding { name: format!("source {}", source.name), kind: "mysql".to_owned(), place: source.url.clone(), state }
    });
    join_all(examined).await
}

async fn look(loaded: &Loaded, source: &SourceSettings) -> Result<String, String> {
    let password = source.password.as_ref().map(|password| password.reveal(&loaded.folder)).transpose();
    let password = password.map_err(|error| format!("password: {error}"))?;
    let tables = captured(source, &loaded.catalog).map_err(|(key, reason)| format!("{key}: {reason}"))?;
    let tls_roots = source.tls_roots.as_ref().map(|file| loaded.folder.join(file));
    let source = SourceSettings { tls_roots, ..source.clone() };
    match examine(&source, password.as_deref(), &tables, &loaded.config.capture).await {
        Ok(server) => Ok(format!("ok: {server}")),
        Err(Trouble::Failed(reason)) => Err(format!("{reason}; check the source's url, and that the server runs")),
        Err(Trouble::Stop(stop)) => Err(stop.to_string()),
        Err(Trouble::Fenced) => Err("somebody else captures it".to_owned()),
    }
}

fn show(findings: &[Finding]) -> Outcome {
    let headings = ["what", "kind", "where", "state"].map(|heading| (heading.to_owned(), Align::Left));
    let row = |finding: &Finding| {
        let state = finding.state.clone().unwrap_or_else(|_| "WRONG".to_owned());
        vec![finding.name.clone(), finding.kind.clone(), finding.place.clone(), state]
    };
    let mut text = render(&headings, &findings.iter().map(row).collect::<Vec<_>>());
    for Finding { name, state, .. } in findings {
        if let Err(reason) = state {
            text.push_str(&format!("\n{name}: {reason}\n"));
        }
    }
    output::print(text)
}
