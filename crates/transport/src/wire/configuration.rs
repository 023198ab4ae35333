//! Configurations of groups, and the small values that many messages share.

use std::sync::Arc;

use flintmq_consensus::{
    Cession, ConfigRegister, ConfigStamp, LogPosition, NodeId, RejoinTarget, SnapshotId,
};

use super::WireError;
use super::limits::MAX_NODES;
use super::reader::Reader;
use super::writer::Writer;

pub(super) fn write_position(to: &mut Writer, position: LogPosition) {
    let LogPosition { term, index } = position;
    to.number(term);
    to.number(index);
}

pub(super) fn read_position(from: &mut Reader<'_>) -> Result<LogPosition, WireError> {
    Ok(LogPosition { term: from.number("term of a position")?, index: from.number("index")? })
}

pub(super) fn write_stamp(to: &mut Writer, stamp: ConfigStamp) {
    let ConfigStamp { term, version } = stamp;
    to.number(term);
    to.number(version);
}

pub(super) fn read_stamp(from: &mut Reader<'_>) -> Result<ConfigStamp, WireError> {
    let term = from.number("term of a configuration")?;
    Ok(ConfigStamp { term, version: from.number("version of a configuration")? })
}

pub(super) fn write_cession(to: &mut Writer, cession: Cession) {
    let Cession { leader, term } = cession;
    to.number(u64::from(leader.0));
    to.number(term);
}

pub(super) fn read_cession(from: &mut Reader<'_>) -> Result<Cession, WireError> {
    Ok(Cession { leader: read_node(from)?, term: from.number("term of a cession")? })
}

pub(super) fn write_rejoin(to: &mut Writer, rejoin: RejoinTarget) {
    let RejoinTarget { epoch, target } = rejoin;
    to.number(epoch);
    write_position(to, target);
}

pub(super) fn read_rejoin(from: &mut Reader<'_>) -> Result<RejoinTarget, WireError> {
    Ok(RejoinTarget { epoch: from.number("epoch")?, target: read_position(from)? })
}

pub(super) fn write_snapshot(to: &mut Writer, id: SnapshotId) {
    let SnapshotId { source, number, position } = id;
    to.number(u64::from(source.0));
    to.number(number);
    write_position(to, position);
}

pub(super) fn read_snapshot(from: &mut Reader<'_>) -> Result<SnapshotId, WireError> {
    let source = read_node(from)?;
    let number = from.number("number of a snapshot")?;
    Ok(SnapshotId { source, number, position: read_position(from)? })
}

pub(super) fn read_node(from: &mut Reader<'_>) -> Result<NodeId, WireError> {
    from.number32("node").map(NodeId)
}

pub(super) fn write_nodes(to: &mut Writer, nodes: &[NodeId]) -> Result<(), WireError> {
    to.counted().nodes(nodes.len())?;
    to.length(nodes.len(), "nodes", MAX_NODES)?;
    for node in nodes {
        to.number(u64::from(node.0));
    }
    Ok(())
}

pub(super) fn read_nodes(from: &mut Reader<'_>) -> Result<Vec<NodeId>, WireError> {
    let length = from.length("nodes", MAX_NODES)?;
    from.counted().nodes(length)?;
    (0..length).map(|_| read_node(from)).collect()
}

pub(super) fn write_config(to: &mut Writer, config: &ConfigRegister) -> Result<(), WireError> {
    to.counted().config()?;
    let ConfigRegister { stamp, voters, outgoing, learners } = config;
    write_stamp(to, *stamp);
    write_nodes(to, voters)?;
    write_nodes(to, outgoing)?;
    write_nodes(to, learners)
}

pub(super) fn read_config(from: &mut Reader<'_>) -> Result<Arc<ConfigRegister>, WireError> {
    from.counted().config()?;
    let stamp = read_stamp(from)?;
    let voters = read_nodes(from)?;
    let outgoing = read_nodes(from)?;
    let learners = read_nodes(from)?;
    Ok(Arc::new(ConfigRegister { stamp, voters, outgoing, learners }))
}
