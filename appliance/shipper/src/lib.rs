//! Ships the logs and metrics of one machine: journald to Loki, host and service metrics to
//! Prometheus remote write.

mod backoff;
pub mod clock;
pub mod counters;
pub mod http;
pub mod journal;
pub mod logs;
pub mod metrics;
mod protobuf;
mod receivers;
mod service;
mod stop;

pub use receivers::{Destination, Receivers};
pub use service::{LogSource, LogStatus, MetricStatus, Service, Settings, Status};
pub use stop::Stop;
