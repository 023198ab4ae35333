//! Frames between the nodes of a FlintMQ cluster, over QUIC.
//!
//! A [`Transport`] keeps one connection to each peer, under mutual TLS with certificates of the
//! cluster's own authority. Frames are opaque bytes. They are sent to a node on a [`Lane`], which
//! is a [`Class`] and a shard of it: lanes never wait for each other, and each class has bounds and
//! a policy of its own for what does not fit. What arrives is handed over in batches, through the
//! channels that [`Routes`] name, and so are connections that come and go.
//!
//! ```
//! use flintmq_transport::{
//!     Authority, Event, Lane, NodeId, QuicSettings, Routes, Settings, Transport,
//! };
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! // For a throw-away cluster; a real one has its certificates in files already.
//! let dir = tempfile::tempdir()?;
//! let authority = Authority::throw_away()?;
//! let quic = |node, port| -> Result<_, Box<dyn std::error::Error>> {
//!     let files = authority.write_node(dir.path(), "dev", NodeId(node))?;
//!     Ok(QuicSettings::new(([127, 0, 0, 1], port).into(), files))
//! };
//!
//! // The second number names this start of the process.
//! let one = Settings::new("dev", NodeId(1), 1);
//! let (routes, mut of_one) = Routes::by_class(64);
//! let one = Transport::bind(one, quic(1, 0)?, routes).await?;
//!
//! let two = Settings::new("dev", NodeId(2), 1).with_peer(NodeId(1), one.local_address()?.to_string());
//! let (routes, mut of_two) = Routes::by_class(64);
//! let two = Transport::bind(two, quic(2, 0)?, routes).await?;
//! one.add_peer(NodeId(2), two.local_address()?.to_string());
//!
//! // Either of the two dials; one connection stays.
//! let Some(Event::PeerUp { peer, .. }) = of_one.events.recv().await else { panic!() };
//! assert_eq!(peer, NodeId(2));
//!
//! // Never waits: it is accepted, or refused with the reason.
//! one.send(NodeId(2), Lane::append(7), vec![1, 2, 3])?;
//! let batch = of_two.append.recv().await.ok_or("the node is gone")?;
//! assert_eq!((batch.from, &batch.frames[0][..]), (NodeId(1), &[1, 2, 3][..]));
//!
//! one.close(std::time::Duration::from_secs(1)).await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What to choose
//!
//! | to send | lane | when [`SendError::Full`] |
//! | --- | --- | --- |
//! | heartbeats, votes | [`Lane::URGENT`] | never: the oldest that wait are dropped |
//! | entries, acknowledgements | [`Lane::append`] with the group | drop it, consensus sends anew; or wait for [`Transport::room`] |
//! | forwarded traffic of clients, administration | [`Lane::gateway`] with the group | stop reading from the client, and wait for [`Transport::room`] |
//! | snapshots | [`Lane::BULK`] | [`Transport::send_when_room`] |
//!
//! # What is promised
//!
//! While a connection lives, accepted frames of a lane arrive in order and without gaps, but for
//! urgent ones that newer ones pushed out. When it ends ([`Event::PeerDown`]), what was not
//! received by then is lost, and nothing is kept for the next one.
//!
//! Everything is bounded: what waits to be sent, what was received and not dropped, every frame and
//! every list in it. Whoever breaks the bounds loses the connection.
//!
//! # Elsewhere
//!
//! - [`wire`] turns the packets of `flintmq-consensus` into frames and back.
//! - [`SimulatedNetwork`] makes transports without a network, for tests with delays, losses and
//!   partitions from a seed.
//! - [`Authority`] makes certificates for clusters that are thrown away, [`certificate_name`] tells
//!   what a real one must be good for.
//! - `docs/internals/transport.md` says why it works the way it does.

mod authority;
mod backoff;
mod certificates;
mod class;
mod connection;
mod delivery;
mod error;
mod frame;
mod metrics;
mod node;
mod pacing;
mod peer;
mod random;
mod send_queue;
mod settings;
mod simulated;
mod transport;
pub mod wire;

pub use authority::{Authority, AuthorityError, NodeCertificate};
pub use certificates::{CertificateError, CertificateFiles, certificate_name};
pub use class::{Class, Lane};
pub use delivery::{Batch, Event, Inbound, Routes};
pub use error::{BindError, SendError};
pub use flintmq_consensus::NodeId;
pub use frame::Frame;
pub use metrics::{METRICS, MetricDefinition};
pub use peer::PeerStatus;
pub use settings::{ClassLimits, MAX_SHARDS, PeerAddress, QuicSettings, Settings, SettingsError};
pub use simulated::{Faults, SimulatedNetwork};
pub use transport::Transport;
