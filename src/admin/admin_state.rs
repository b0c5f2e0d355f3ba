//! What the handlers of this folder work with: where the document comes from, and whom to tell what operators decide.
//!
//! Invariant: handlers know neither actors nor masters; whoever builds the node gives them both.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::view::ClusterView;
use crate::net::control::{Answered, Ask};

/// Makes the document, as of now.
pub type ViewSource = Arc<dyn Fn() -> BoxFuture<'static, ClusterView> + Send + Sync>;

/// Carries operators' decisions to the active master, wherever it is.
pub trait Masters: Send + Sync {
    fn ask(&self, ask: Ask) -> BoxFuture<'static, Answered>;
}
