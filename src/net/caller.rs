//! What is known of the caller of a request, handed from the door to the role that answers.
//!
//! Invariant: absent means unrestricted; a role that finds a restriction that it cannot keep refuses.

use crate::model::id::Key;

/// The only partition-key value that the caller may see; travels in the request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundKey(pub Key);
