//! What does not fit, for a person to find out why.

use crate::protocol::Node;
use flintmq_consensus::NodeId;
use std::fmt;

/// A step of a real core that the model cannot explain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The replica that took the step.
    pub replica: NodeId,
    /// How many steps were looked at, this one included.
    pub step: u64,
    /// What does not fit.
    pub why: String,
    /// The core's side.
    pub seen: String,
    /// The model's side, before the step.
    pub model: String,
    /// The steps that the model would have let it take.
    pub enabled: Vec<String>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { replica, step, why, seen, model, enabled } = self;
        writeln!(f, "replica {replica}, step {step}: {why}")?;
        writeln!(f, "  seen:  {seen}")?;
        writeln!(f, "  model: {model}")?;
        for action in enabled {
            writeln!(f, "  might: {action}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mismatch {}

/// One replica of the model in a line.
pub(super) fn line(node: &Node) -> String {
    let Node { term, config, role, log, recovering, versions, order, .. } = node;
    let versions: Vec<&[u8]> = versions.iter().map(crate::protocol::Log::terms).collect();
    format!(
        "term {term} {role:?} log {:?}{} config {}.{} {:b}/{:b} versions {versions:?} \
         order {order:b}",
        log.terms(),
        if *recovering { " recovering" } else { "" },
        config.term,
        config.version,
        config.voters,
        config.outgoing,
    )
}
