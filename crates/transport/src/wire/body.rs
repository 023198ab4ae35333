//! The kinds of messages: one byte that says which, then its fields in the order of their
//! declaration.
//!
//! The numbers are for ever: a kind that goes leaves its number unused, a kind that changes its
//! fields takes a new one. The matches on [`Body`] name every field of every kind, so that a new
//! one does not compile before it has a place here.

use std::sync::Arc;

use flintmq_consensus::{Answer, Body, ConfigRegister, FetchOutcome, NodeId};

use super::WireError;
use super::configuration::{
    read_cession, read_config, read_node, read_nodes, read_position, read_rejoin, read_snapshot,
    read_stamp, write_cession, write_config, write_nodes, write_position, write_rejoin,
    write_snapshot, write_stamp,
};
use super::entries;
use super::reader::Reader;
use super::writer::Writer;

const SCOUT: u8 = 1;
const SCOUT_REPLY: u8 = 2;
const PROPOSE: u8 = 3;
const SYNC_REQUEST: u8 = 4;
const REPLY: u8 = 5;
const REFUSED: u8 = 6;
const FETCH: u8 = 7;
const FETCH_REPLY: u8 = 8;
const APPEND: u8 = 9;
const ACK: u8 = 10;
const REJOIN_GRANT: u8 = 11;
const CONFIRM: u8 = 12;
const CONFIRMED: u8 = 13;
const CEDE: u8 = 14;
const QUIESCE: u8 = 15;
const QUIESCED: u8 = 16;
const WAKE: u8 = 17;
const SNAPSHOT_OFFER: u8 = 18;
const SNAPSHOT_WANTED: u8 = 19;
const SNAPSHOT_CHUNK: u8 = 20;

const FETCHED_ENTRIES: u8 = 0;
const FETCH_CONFLICT: u8 = 1;
const FETCH_COMPACTED: u8 = 2;
const FETCH_GONE: u8 = 3;

pub(super) fn write(to: &mut Writer, body: &Body) -> Result<(), WireError> {
    match body {
        Body::Scout { next, config, last, cession } => {
            to.byte(SCOUT);
            to.number(*next);
            write_stamp(to, *config);
            write_position(to, *last);
            write_option(to, cession.as_ref(), |to, cession| write_cession(to, *cession));
        }
        Body::ScoutReply { next, granted, last, recovering, leader, ceded, newer } => {
            to.byte(SCOUT_REPLY);
            to.number(*next);
            to.byte(u8::from(*granted));
            write_position(to, *last);
            to.byte(u8::from(*recovering));
            write_option(to, leader.as_ref(), |to, leader| write_cession(to, *leader));
            write_option(to, ceded.as_ref(), |to, ceded| write_cession(to, *ceded));
            write_newer(to, newer.as_ref())?;
        }
        Body::Propose { config, cession } => {
            to.byte(PROPOSE);
            write_stamp(to, *config);
            write_option(to, cession.as_ref(), |to, cession| write_cession(to, *cession));
        }
        Body::SyncRequest { config } => {
            to.byte(SYNC_REQUEST);
            write_stamp(to, *config);
        }
        Body::Reply(Answer { vote, first, last, commit, recovering, history }) => {
            to.byte(REPLY);
            to.byte(u8::from(*vote));
            to.number(*first);
            write_position(to, *last);
            to.number(*commit);
            write_option(to, recovering.as_ref(), |to, epoch| to.number(*epoch));
            to.number(u64::from(*history));
        }
        Body::Refused { newer } => {
            to.byte(REFUSED);
            write_newer(to, newer.as_ref())?;
        }
        Body::Fetch { prev, upto, max_bytes } => {
            to.byte(FETCH);
            write_position(to, *prev);
            write_position(to, *upto);
            to.number(u64::from(*max_bytes));
        }
        Body::FetchReply { prev, outcome } => {
            to.byte(FETCH_REPLY);
            write_position(to, *prev);
            match outcome {
                FetchOutcome::Entries(fetched) => {
                    to.byte(FETCHED_ENTRIES);
                    entries::write(to, *prev, fetched)?;
                }
                FetchOutcome::Conflict(position) => {
                    to.byte(FETCH_CONFLICT);
                    write_position(to, *position);
                }
                FetchOutcome::Compacted => to.byte(FETCH_COMPACTED),
                FetchOutcome::Gone => to.byte(FETCH_GONE),
            }
        }
        Body::Append { prev, entries, commit, history, config, newer, rejoin } => {
            to.byte(APPEND);
            write_position(to, *prev);
            entries::write(to, *prev, entries)?;
            // Commit and last entry are close to each other.
            to.difference(prev.index, *commit);
            to.number(u64::from(*history));
            write_stamp(to, *config);
            write_newer(to, newer.as_ref())?;
            write_option(to, rejoin.as_ref(), |to, rejoin| write_rejoin(to, *rejoin));
        }
        Body::Ack { outcome, synced, config, recovering } => {
            to.byte(ACK);
            match outcome {
                Ok(verified) => {
                    to.byte(1);
                    to.number(*verified);
                }
                Err(probe) => {
                    to.byte(0);
                    write_position(to, *probe);
                }
            }
            to.number(*synced);
            write_stamp(to, *config);
            write_option(to, recovering.as_ref(), |to, epoch| to.number(*epoch));
        }
        Body::RejoinGrant(target) => {
            to.byte(REJOIN_GRANT);
            write_rejoin(to, *target);
        }
        Body::Confirm { round } => {
            to.byte(CONFIRM);
            to.number(*round);
        }
        Body::Confirmed { round } => {
            to.byte(CONFIRMED);
            to.number(*round);
        }
        Body::Cede { successor } => {
            to.byte(CEDE);
            write_option(to, successor.as_ref(), |to, NodeId(node)| to.number(u64::from(*node)));
        }
        Body::Quiesce { last, lagging } => {
            to.byte(QUIESCE);
            write_position(to, *last);
            write_nodes(to, lagging)?;
        }
        Body::Quiesced { last } => {
            to.byte(QUIESCED);
            write_position(to, *last);
        }
        Body::Wake => to.byte(WAKE),
        Body::SnapshotOffer { id, history, config, newer } => {
            to.byte(SNAPSHOT_OFFER);
            write_snapshot(to, *id);
            to.number(u64::from(*history));
            write_option(to, config.as_ref(), |to, stamp| write_stamp(to, *stamp));
            write_newer(to, newer.as_ref())?;
        }
        Body::SnapshotWanted { id, cursor } => {
            to.byte(SNAPSHOT_WANTED);
            write_snapshot(to, *id);
            to.payload(cursor);
        }
        Body::SnapshotChunk { id, cursor, data, crc, next } => {
            to.byte(SNAPSHOT_CHUNK);
            write_snapshot(to, *id);
            to.payload(cursor);
            to.payload(data);
            to.fixed32(*crc);
            write_option(to, next.as_ref(), |to, next| to.payload(next));
        }
    }
    Ok(())
}

pub(super) fn read(from: &mut Reader<'_>) -> Result<Body, WireError> {
    Ok(match from.byte("kind of a message")? {
        SCOUT => Body::Scout {
            next: from.number("term")?,
            config: read_stamp(from)?,
            last: read_position(from)?,
            cession: read_option(from, read_cession)?,
        },
        SCOUT_REPLY => Body::ScoutReply {
            next: from.number("term")?,
            granted: read_flag(from)?,
            last: read_position(from)?,
            recovering: read_flag(from)?,
            leader: read_option(from, read_cession)?,
            ceded: read_option(from, read_cession)?,
            newer: read_option(from, read_config)?,
        },
        PROPOSE => {
            Body::Propose { config: read_stamp(from)?, cession: read_option(from, read_cession)? }
        }
        SYNC_REQUEST => Body::SyncRequest { config: read_stamp(from)? },
        REPLY => Body::Reply(Answer {
            vote: read_flag(from)?,
            first: from.number("index")?,
            last: read_position(from)?,
            commit: from.number("index")?,
            recovering: read_option(from, |from| from.number("epoch"))?,
            history: from.number32("history")?,
        }),
        REFUSED => Body::Refused { newer: read_option(from, read_config)? },
        FETCH => Body::Fetch {
            prev: read_position(from)?,
            upto: read_position(from)?,
            max_bytes: from.number32("bytes to fetch")?,
        },
        FETCH_REPLY => {
            let prev = read_position(from)?;
            let outcome = match from.byte("outcome of a fetch")? {
                FETCHED_ENTRIES => FetchOutcome::Entries(entries::read(from, prev)?),
                FETCH_CONFLICT => FetchOutcome::Conflict(read_position(from)?),
                FETCH_COMPACTED => FetchOutcome::Compacted,
                FETCH_GONE => FetchOutcome::Gone,
                other => return Err(unknown("outcome of a fetch", other)),
            };
            Body::FetchReply { prev, outcome }
        }
        APPEND => {
            let prev = read_position(from)?;
            Body::Append {
                prev,
                entries: entries::read(from, prev)?,
                commit: from.difference(prev.index, "commit index")?,
                history: from.number32("history")?,
                config: read_stamp(from)?,
                newer: read_option(from, read_config)?,
                rejoin: read_option(from, read_rejoin)?,
            }
        }
        ACK => Body::Ack {
            outcome: match from.byte("outcome of an append")? {
                1 => Ok(from.number("index")?),
                0 => Err(read_position(from)?),
                other => return Err(unknown("outcome of an append", other)),
            },
            synced: from.number("index")?,
            config: read_stamp(from)?,
            recovering: read_option(from, |from| from.number("epoch"))?,
        },
        REJOIN_GRANT => Body::RejoinGrant(read_rejoin(from)?),
        CONFIRM => Body::Confirm { round: from.number("round")? },
        CONFIRMED => Body::Confirmed { round: from.number("round")? },
        CEDE => Body::Cede { successor: read_option(from, read_node)? },
        QUIESCE => Body::Quiesce { last: read_position(from)?, lagging: read_nodes(from)? },
        QUIESCED => Body::Quiesced { last: read_position(from)? },
        WAKE => Body::Wake,
        SNAPSHOT_OFFER => Body::SnapshotOffer {
            id: read_snapshot(from)?,
            history: from.number32("history")?,
            config: read_option(from, read_stamp)?,
            newer: read_option(from, read_config)?,
        },
        SNAPSHOT_WANTED => Body::SnapshotWanted {
            id: read_snapshot(from)?,
            cursor: from.payload("cursor of a snapshot")?,
        },
        SNAPSHOT_CHUNK => Body::SnapshotChunk {
            id: read_snapshot(from)?,
            cursor: from.payload("cursor of a snapshot")?,
            data: from.payload("piece of a snapshot")?,
            crc: from.fixed32("checksum")?,
            next: read_option(from, |from| from.payload("cursor of a snapshot"))?,
        },
        other => return Err(unknown("kind of a message", other)),
    })
}

fn write_newer(to: &mut Writer, newer: Option<&Arc<ConfigRegister>>) -> Result<(), WireError> {
    to.byte(u8::from(newer.is_some()));
    newer.map_or(Ok(()), |config| write_config(to, config))
}

fn write_option<T>(to: &mut Writer, value: Option<&T>, write: impl FnOnce(&mut Writer, &T)) {
    to.byte(u8::from(value.is_some()));
    if let Some(value) = value {
        write(to, value);
    }
}

fn read_option<'a, T>(
    from: &mut Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, WireError>,
) -> Result<Option<T>, WireError> {
    if read_flag(from)? { read(from).map(Some) } else { Ok(None) }
}

fn read_flag(from: &mut Reader<'_>) -> Result<bool, WireError> {
    match from.byte("yes or no")? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(unknown("yes or no", other)),
    }
}

fn unknown(what: &'static str, value: u8) -> WireError {
    WireError::Unknown { what, value: value.into() }
}
