//! Groups that nobody serves: what `/readyz` and the status tell of them, and what the log says
//! when it takes longer than elections do.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::Node;
use super::NodeCell;
use flintmq_shard::ReplicaStatus;

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How long groups may be without a leader until the log says why. Elections take less.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it says so again while the same nodes are missing.
const AGAIN: Duration = Duration::from_secs(60);

/// One line for each group without a leader that serves.
pub(super) fn reasons(node: &Node) -> Vec<String> {
    let missing = missing(node);
    let line = |(group, status): (u32, ReplicaStatus)| {
        let leader = status.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string());
        let term = status.term;
        let mut line = format!(
            "group {group} has no leader that serves, as far as this node knows, leader={leader} term={term}"
        );
        if !missing.is_empty() {
            line.push_str(&format!(" unreachable_nodes={missing:?}"));
        }
        if status.recovering {
            line.push_str(" recovering=true: the end of its log may be lost with this machine's power, so the others have to tell what there was");
        }
        line
    };
    unserved(node).map(line).collect()
}

/// Tells the log why clients wait, until `stop`.
pub(crate) async fn tell(cell: NodeCell, stop: CancellationToken) {
    let mut waiting = Waiting::default();
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            () = stop.cancelled() => return,
        }
        let Some(node) = cell.0.get() else { continue };
        let groups = unserved(node).count();
        let unreachable = missing(node);
        match waiting.look(groups, &unreachable, Instant::now()) {
            Word::Nothing => {}
            Word::Waits => {
                let recovering = unserved(node).filter(|(_, status)| status.recovering).count();
                tracing::warn!(groups, ?unreachable, recovering, "{}", advice(node, &unreachable));
            }
            Word::Over => tracing::info!("all groups have leaders that serve"),
        }
    }
}

fn unserved(node: &Node) -> impl Iterator<Item = (u32, ReplicaStatus)> {
    let controller = std::iter::once((0, node.controller.status()));
    let partitions = node.partitions.iter().map(|p| (p.group().0, p.status()));
    controller.chain(partitions).filter(|(_, status)| !status.led)
}

/// Nodes that cannot be reached from here.
fn missing(node: &Node) -> Vec<u32> {
    node.nodes().into_iter().filter(|id| !node.reaches(*id)).collect()
}

fn advice(node: &Node, missing: &[u32]) -> &'static str {
    let nodes = node.nodes().len();
    if missing.is_empty() {
        "groups have no leader: look at the logs of the nodes that should lead"
    } else if nodes.saturating_sub(missing.len()) * 2 <= nodes {
        "groups have no leader, for too few nodes can be reached: bring nodes back, or connect them"
    } else {
        // A majority is there.
        "groups have no leader: when machines have lost their power, all nodes have to be back and tell what they have; \
         for nodes that never come back give `flintmq admin group recover`"
    }
}

/// Since when groups have waited, and when that was told, with which nodes missing.
#[derive(Default)]
struct Waiting {
    since: Option<Instant>,
    told: Option<(Instant, Vec<u32>)>,
}

enum Word {
    Nothing,
    Waits,
    Over,
}

impl Waiting {
    fn look(&mut self, groups: usize, missing: &[u32], now: Instant) -> Word {
        if groups == 0 {
            self.since = None;
            return if self.told.take().is_some() { Word::Over } else { Word::Nothing };
        }
        let since = *self.since.get_or_insert(now);
        let due = match &self.told {
            None => since + PATIENCE,
            Some((told, then)) if then == missing => *told + AGAIN,
            Some((told, _)) => *told + PATIENCE,
        };
        if now < due {
            return Word::Nothing;
        }
        self.told = Some((now, missing.to_vec()));
        Word::Waits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_after_a_while_then_rarely_and_at_the_end() {
        let start = Instant::now();
        let mut waiting = Waiting::default();
        let mut words = Vec::new();
        for second in 0..120_u64 {
            let groups = usize::from(second < 100);
            let missing: &[u32] = if second < 8 { &[2, 3] } else { &[3] };
            match waiting.look(groups, missing, start + Duration::from_secs(second)) {
                Word::Nothing => {}
                Word::Waits => words.push((second, "waits")),
                Word::Over => words.push((second, "over")),
            }
        }
        assert_eq!(words, [(5, "waits"), (10, "waits"), (70, "waits"), (100, "over")]);
    }
}
