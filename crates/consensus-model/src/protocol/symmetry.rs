//! States that differ only in the names of the nodes are the same.

use super::{Config, Message, Nodes, State};

/// The least of the renamed states whose nodes are sorted by what does not depend on names: exact,
/// and only ties have to be tried.
pub(super) fn canonical(state: &State) -> State {
    let keys: Vec<_> = (0..state.nodes.len()).map(|node| key(state, node)).collect();
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by(|one, other| keys[*one].cmp(&keys[*other]));
    let mut best: Option<State> = None;
    let mut try_order = |order: &[usize]| {
        let mut names = vec![0u8; order.len()];
        for (new, old) in order.iter().enumerate() {
            names[*old] = new as u8;
        }
        let renamed = rename(state, &names);
        if best.as_ref().is_none_or(|best| renamed < *best) {
            best = Some(renamed);
        }
    };
    permute_ties(&order, &|one, other| keys[one] == keys[other], &mut Vec::new(), &mut try_order);
    best.unwrap_or_else(|| state.clone())
}

fn key(state: &State, number: usize) -> impl Ord + use<> {
    let node = &state.nodes[number];
    let mut sent = [0u8; 4];
    let is = |name: &u8| usize::from(*name) == number;
    for message in &state.messages {
        match message {
            Message::Propose { from, .. } | Message::Append { from, .. } if is(from) => {
                sent[0] += 1;
            }
            Message::Reply { from, to, .. } => {
                sent[1] += u8::from(is(from));
                sent[2] += u8::from(is(to));
            }
            Message::Ack { from, index, .. } if is(from) => {
                sent[3] = sent[3].wrapping_add(1 + 8 * index);
            }
            Message::Grant { to, .. } if is(to) => sent[3] = sent[3].wrapping_add(100),
            _ => {}
        }
    }
    let config = (node.config.stamp(), node.config.voters.count_ones());
    let flags = (node.stands, node.witness, node.recovering, state.dead >> number & 1);
    (flags, node.term, node.role, node.log, node.need, config, node.order.count_ones(), sent)
}

/// Calls with each order that differs from the first only among nodes with equal keys.
fn permute_ties(
    order: &[usize],
    tied: &dyn Fn(usize, usize) -> bool,
    chosen: &mut Vec<usize>,
    call: &mut dyn FnMut(&[usize]),
) {
    let Some(place) = order.get(chosen.len()) else {
        call(chosen);
        return;
    };
    for node in order {
        if !chosen.contains(node) && tied(*node, *place) {
            chosen.push(*node);
            permute_ties(order, tied, chosen, call);
            chosen.pop();
        }
    }
}

fn rename(state: &State, names: &[u8]) -> State {
    let name = |node: u8| names[usize::from(node)];
    let set = |nodes: Nodes| {
        let members = names.iter().enumerate().filter(|(node, _)| nodes & (1 << node) != 0);
        members.fold(0, |set: Nodes, (_, name)| set | 1 << name)
    };
    let register = |config: &Config| Config {
        voters: set(config.voters),
        outgoing: set(config.outgoing),
        ..*config
    };
    let mut nodes = state.nodes.clone();
    for (number, node) in state.nodes.iter().enumerate() {
        let mut node = node.clone();
        node.config = register(&node.config);
        node.order = set(node.order);
        nodes[usize::from(names[number])] = node;
    }
    let message = |message: &Message| match *message {
        Message::Propose { term, from, config } => {
            Message::Propose { term, from: name(from), config: register(&config) }
        }
        Message::Reply { term, from, to, log, recovering } => {
            Message::Reply { term, from: name(from), to: name(to), log, recovering }
        }
        Message::Append { term, from, log } => Message::Append { term, from: name(from), log },
        Message::Ack { term, from, to, index } => {
            Message::Ack { term, from: name(from), to: name(to), index }
        }
        Message::ConfigAck { term, from, to, config } => {
            let config = register(&config);
            Message::ConfigAck { term, from: name(from), to: name(to), config }
        }
        Message::Grant { term, to, index, last } => {
            Message::Grant { term, to: name(to), index, last }
        }
    };
    State {
        nodes,
        messages: state.messages.iter().map(message).collect(),
        committed: state.committed.clone(),
        elected: state.elected.iter().map(|(term, node)| (*term, name(*node))).collect(),
        configs: state.configs.iter().map(register).collect(),
        dead: set(state.dead),
        ..*state
    }
}
