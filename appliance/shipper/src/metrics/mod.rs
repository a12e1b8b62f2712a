//! Metrics: collected, and sent by Prometheus remote write.

mod cgroup;
mod host;
mod own;
mod process;
mod ring;
mod sample;
mod scrape;
pub(crate) mod second;
mod secrets;
mod sender;
mod text;

pub use self::secrets::Secrets;
pub use cgroup::Units;
pub use host::Host;
pub use own::Own;
pub use process::Group;
pub use ring::{Frame, Ring};
pub use sample::{Kind, Sink, Snapshot, TextSink};
pub use scrape::{Scraper, Source, Target};
pub use sender::Sender;
pub use text::{Text, parse};
