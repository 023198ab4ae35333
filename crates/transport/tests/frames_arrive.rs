//! What is sent over a real connection arrives whole, in order, and without holding up the other
//! lanes.

#![allow(clippy::unwrap_used)]

mod nodes;

use std::time::Duration;

use bytes::Bytes;
use flintmq_transport::{Class, Frame, Lane, NodeId, SendError};
use nodes::{Cluster, expect, number_of, numbered};
use tokio::time::timeout;

#[tokio::test]
async fn frames_of_all_sizes_arrive_in_order_in_both_directions() {
    let cluster = Cluster::new();
    let [mut one, mut two] = cluster.connected_pair().await;
    let sizes = [4, 100, 1024, 5000, 70_000, 300_000, 3_000_000];
    let frames =
        move |from: u32| (0..200_u32).map(move |i| numbered(from + i, sizes[i as usize % 7]));
    for (node, to, from) in [(&one, 2, 0), (&two, 1, 1000)] {
        let transport = node.transport.clone();
        tokio::spawn(async move {
            for frame in frames(from) {
                transport.send_when_room(NodeId(to), Lane::append(0), frame).await.unwrap();
            }
        });
    }
    for (node, from) in [(&mut two, 0), (&mut one, 1000)] {
        let mut expected = frames(from);
        let mut left = 200;
        while left > 0 {
            for frame in node.append().await.frames {
                assert!(frame == expected.next().unwrap(), "frame {}", 200 - left);
                left -= 1;
            }
        }
    }
}

#[tokio::test]
async fn pieces_arrive_as_one_frame_and_small_frames_in_batches() {
    let cluster = Cluster::new();
    let [one, mut two] = cluster.connected_pair().await;
    let pieces = vec![Bytes::from(vec![1; 10_000]), Bytes::from(vec![2; 3])];
    let frame = Frame::new(Bytes::from_static(b"head"), pieces);
    one.transport.send(NodeId(2), Lane::append(3), frame.clone()).unwrap();
    let batch = two.append().await;
    assert_eq!(batch.frames, [frame.to_bytes()]);
    assert_eq!((batch.from, batch.incarnation), (NodeId(1), 1));
    assert_eq!(batch.lane, Lane::append(3));

    // Sent in one go, so that the writer finds them all.
    for number in 0..1000 {
        one.transport.send(NodeId(2), Lane::append(0), numbered(number, 64)).unwrap();
    }
    let (mut batches, mut next) = (0, 0);
    while next < 1000 {
        for frame in two.append().await.frames {
            assert_eq!(number_of(&frame), next);
            next += 1;
        }
        batches += 1;
    }
    assert!(batches <= 300, "{batches} batches for 1000 frames");
}

#[tokio::test]
async fn a_class_that_is_not_read_holds_up_no_other_and_refuses_in_the_end() {
    let cluster = Cluster::new();
    let [one, mut two] = cluster.connected_pair().await;
    let to = NodeId(2);
    for lane in [Lane::BULK, Lane::gateway(0)] {
        let full = SendError::Full { peer: to, class: lane.class };
        let mut sent = 0_u32;
        let refused = timeout(nodes::PATIENCE, async {
            // Until even after some time to drain nothing more goes.
            loop {
                match one.transport.send(to, lane, numbered(sent, 100_000)) {
                    Ok(()) => sent += 1,
                    Err(error) => {
                        let room = one.transport.room(to, lane);
                        if timeout(Duration::from_millis(500), room).await.is_err() {
                            return error;
                        }
                    }
                }
            }
        })
        .await
        .unwrap();
        assert_eq!(refused, full);

        one.transport.send(to, Lane::URGENT, numbered(7, 50)).unwrap();
        assert_eq!(number_of(&expect(&mut two.inbound.urgent).await.frames[0]), 7);
        one.transport.send(to, Lane::append(0), numbered(8, 50)).unwrap();
        assert_eq!(number_of(&two.append().await.frames[0]), 8);

        // Once it is read again, everything comes.
        let channel = match lane.class {
            Class::Bulk => &mut two.inbound.bulk,
            _ => &mut two.inbound.gateway,
        };
        let mut next = 0;
        while next < sent {
            for frame in expect(channel).await.frames {
                assert_eq!(number_of(&frame), next);
                next += 1;
            }
        }
        one.transport.room(to, lane).await.unwrap();
    }
}

#[tokio::test]
async fn last_words_arrive_before_the_connection_is_closed() {
    let cluster = Cluster::new();
    let [one, mut two] = cluster.connected_pair().await;
    for number in 0..500 {
        one.transport.send(NodeId(2), Lane::append(0), numbered(number, 10_000)).unwrap();
    }
    let closing = tokio::spawn(async move { one.transport.close(nodes::PATIENCE).await });
    let mut next = 0;
    while next < 500 {
        for frame in two.append().await.frames {
            assert_eq!(number_of(&frame), next);
            next += 1;
        }
    }
    let reason = nodes::down(&mut two).await;
    assert!(reason.contains("the node stops"), "{reason}");
    closing.await.unwrap();
}
