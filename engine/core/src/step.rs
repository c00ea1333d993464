//! What one step returns: the record that is journaled, replayed and compared.

use crate::action::Action;
use crate::time::Instant;
use alloc::vec::Vec;
use serde::Serialize;

/// The answer to one event.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// To be done, in order.
    pub actions: Vec<Action>,
    /// Call again at this time if nothing happens before, and why.
    pub wake_at: (Instant, &'static str),
}
