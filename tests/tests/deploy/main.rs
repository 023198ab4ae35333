//! Fear: the files in `deploy` tell of another broker than this one, or of another cluster than
//! each other. Only `live` and `live_cluster` need a broker.

mod alerts;
mod compose;
mod dashboard;
mod files;
mod kubernetes;
mod live;
mod live_cluster;
mod metrics_page;
mod node_configs;
mod programs;
mod promql;
mod systemd;
