//! How a trace says what happened. An entry is `index@term`; a term above 2³² is one of an
//! operator's order, `order:term`.

use flintmq_consensus::{
    Body, ConfigRegister, ConfigStamp, Effect, Entry, EntryKind, FetchOutcome, LogPosition,
    Message, NodeId, Term,
};

pub(super) fn term(term: Term) -> String {
    match term >> 32 {
        0 => term.to_string(),
        order => format!("{order}:{}", term & 0xffff_ffff),
    }
}

fn at(position: LogPosition) -> String {
    format!("{}@{}", position.index, term(position.term))
}

fn stamp(stamp: ConfigStamp) -> String {
    format!("{}.{}", term(stamp.term), stamp.version)
}

fn nodes(nodes: &[NodeId]) -> String {
    let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    format!("{{{}}}", nodes.join(","))
}

pub(super) fn config(config: &ConfigRegister) -> String {
    let mut text = format!("{}{}", stamp(config.stamp), nodes(&config.voters));
    if config.is_joint() {
        text += &format!(" outgoing{}", nodes(&config.outgoing));
    }
    if !config.learners.is_empty() {
        text += &format!(" learners{}", nodes(&config.learners));
    }
    text
}

pub(super) fn entry(entry: &Entry) -> String {
    let payload = match entry.kind {
        EntryKind::Barrier => "barrier".to_owned(),
        _ => String::from_utf8_lossy(&entry.payload).into_owned(),
    };
    format!("{} {payload}", at(entry.position()))
}

fn entries(list: &[Entry]) -> String {
    let list: Vec<String> = list.iter().map(entry).collect();
    format!("[{}]", list.join(", "))
}

/// One line for a message; `x` when it does not arrive.
pub(super) fn message(message: &Message, arrives: bool) -> String {
    let arrow = if arrives { "→" } else { "x" };
    let (from, to, term) = (message.from, message.to, term(message.term));
    format!("{from}{arrow}{to} t{term} {}", body(&message.body))
}

fn body(body: &Body) -> String {
    match body {
        Body::Scout { next, last, cession, .. } => {
            let next = term(*next);
            let why = cession.map(|c| format!(", {} ceded t{}", c.leader, term(c.term)));
            format!(
                "would you vote for me in t{next}? I have {}{}",
                at(*last),
                why.unwrap_or_default()
            )
        }
        Body::ScoutReply { granted: true, last, recovering, .. } => {
            let flag = if *recovering { ", recovering" } else { "" };
            format!("yes, I have {}{flag}", at(*last))
        }
        Body::ScoutReply { leader: Some(loyal), .. } => {
            format!("no, {} leads t{}", loyal.leader, term(loyal.term))
        }
        Body::ScoutReply { newer: Some(newer), .. } => {
            format!("no, the members are {}", config(newer))
        }
        Body::ScoutReply { .. } => "no".to_owned(),
        Body::Propose { cession, .. } => {
            let why = cession.map(|c| format!(", {} ceded t{}", c.leader, term(c.term)));
            format!("vote for me{}", why.unwrap_or_default())
        }
        Body::SyncRequest { .. } => "I am elected, what have you got?".to_owned(),
        Body::Reply(answer) => {
            let vote = if answer.vote { "you have my vote, " } else { "" };
            let flag = answer.recovering.map(|epoch| format!(", recovering from loss {epoch}"));
            format!(
                "{vote}I have {}, decided {}{}",
                at(answer.last),
                answer.commit,
                flag.unwrap_or_default()
            )
        }
        Body::Refused { newer: Some(newer) } => format!("no, the members are {}", config(newer)),
        Body::Refused { newer: None } => "no".to_owned(),
        Body::Fetch { prev, upto, .. } => {
            format!("give me what follows {} up to {}", at(*prev), at(*upto))
        }
        Body::FetchReply { outcome, .. } => match outcome {
            FetchOutcome::Entries(list) => format!("here: {}", entries(list)),
            FetchOutcome::Conflict(hint) => format!("I have not that, try {}", at(*hint)),
            FetchOutcome::Compacted => "that is compacted, a snapshot follows".to_owned(),
            FetchOutcome::Gone => "that is gone".to_owned(),
        },
        Body::Append { prev, entries: list, commit, newer, rejoin, .. } => {
            let members = newer.as_ref().map(|newer| format!(", members {}", config(newer)));
            let target =
                rejoin.map(|r| format!(", rejoin with {} after loss {}", at(r.target), r.epoch));
            format!(
                "after {}: {}, decided {commit}{}{}",
                at(*prev),
                entries(list),
                members.unwrap_or_default(),
                target.unwrap_or_default()
            )
        }
        Body::Ack { outcome, recovering, .. } => {
            let flag = recovering.map(|epoch| format!(", recovering from loss {epoch}"));
            let flag = flag.unwrap_or_default();
            match outcome {
                Ok(verified) => format!("equal up to {verified}{flag}"),
                Err(hint) => format!("I lack that, try {}{flag}", at(*hint)),
            }
        }
        Body::RejoinGrant(grant) => {
            format!("rejoin with {} after loss {}", at(grant.target), grant.epoch)
        }
        Body::Confirm { round } => format!("do you still follow me? ({round})"),
        Body::Confirmed { round } => format!("yes ({round})"),
        Body::Cede { successor: None } => "I lead no more".to_owned(),
        Body::Cede { successor: Some(next) } => format!("I lead no more, {next} shall"),
        Body::Quiesce { last, .. } => format!("all is decided up to {}, let us rest", at(*last)),
        Body::Quiesced { .. } => "resting".to_owned(),
        Body::Wake => "speak to me".to_owned(),
        Body::SnapshotOffer { id, .. } => format!("here is a snapshot at {}", at(id.position)),
        Body::SnapshotWanted { cursor, .. } => format!("give me its piece {:?}", &cursor[..]),
        Body::SnapshotChunk { cursor, data, next, .. } => {
            let more = if next.is_some() { "" } else { ", the last" };
            format!("piece {:?}: {}{more}", &cursor[..], String::from_utf8_lossy(data))
        }
    }
}

/// One line for an effect.
pub(super) fn effect(node: NodeId, effect: &Effect) -> String {
    let text = match effect {
        Effect::SaveHardState { state, .. } => {
            let vote = state.voted_for.map(|node| format!(" vote {node}")).unwrap_or_default();
            let history = if state.history > 0 {
                format!(" history {}", state.history)
            } else {
                String::new()
            };
            let void = if state.void { ", what it has is void" } else { "" };
            let (term, config) = (term(state.term), config(&state.config));
            format!("saves t{term}{vote}{history} members {config}{void}")
        }
        Effect::Append { truncate_from, entries: list, .. } => {
            let cut = truncate_from.map(|index| format!("cuts from {index}, "));
            format!("{}writes {}", cut.unwrap_or_default(), entries(list))
        }
        Effect::Reset { .. } => "drops all it has: the group's past is another one".to_owned(),
        Effect::ReadLog { after, upto, .. } => format!("reads its log after {after} to {upto}"),
        Effect::Commit { upto } => format!("applies up to {upto}"),
        Effect::Serving { term: led } => format!("SERVES t{}", term(*led)),
        Effect::RoleChanged { role, term: of_term, leader } => {
            let leader = leader.filter(|leader| leader != &node);
            let of = leader.map(|leader| format!(" of {leader}")).unwrap_or_default();
            format!("is {role:?}{of} in t{}", term(*of_term))
        }
        Effect::ReadReady { read, index } => format!("answers read {read} at {index}"),
        Effect::ReadRefused { read } => format!("refuses read {read}"),
        Effect::Rejoined { epoch } => format!("REJOINED after loss {epoch}"),
        Effect::HistoryForked { history, last, commit_bound } => format!(
            "FORKED: goes on in history {history} with {}, {commit_bound} was decided",
            at(*last)
        ),
        Effect::SnapshotOpen { to } => format!("opens a snapshot for {to}"),
        Effect::SnapshotRead { cursor, .. } => format!("reads piece {:?}", &cursor[..]),
        Effect::SnapshotClose { to, .. } => format!("closes the snapshot for {to}"),
        Effect::SnapshotStage { cursor, .. } => format!("keeps piece {:?}", &cursor[..]),
        Effect::SnapshotInstall { id, .. } => {
            format!("installs the snapshot at {}", at(id.position))
        }
        Effect::TransferAbandoned { to } => format!("gives up the transfer to {to}"),
        Effect::Removed => "is no member any more".to_owned(),
        Effect::Stop { reason } => format!("STOPS: {reason}"),
        Effect::Send(_) => unreachable!("messages are told when they arrive"),
    };
    format!("{node}: {text}")
}
