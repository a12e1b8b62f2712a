//! `make bench-store`: the store beside one file an object, same run, same disk, one core.
//!
//! `LARDER_BENCH_DIR`: where (default: the target folder's disk); `LARDER_BENCH_OBJECTS`: objects in the
//! index of the large part (default 5 million, about 2.5 GB); `LARDER_BENCH_PART`: only this part of `write`,
//! `ack` (for a profiler), `read`, `full`, `threshold`, `ratio`, `many`. What is printed is what `docs/benchmarks.md` holds. The run
//! goes on past an aim that is missed, and fails at its end.

mod common;
mod many;
mod ratio;
mod reads;
#[path = "../../src/tests/trace.rs"]
mod trace;
mod writes;

use std::fs;
use std::path::PathBuf;

use common::Aims;
use rustix::thread::{CpuSet, sched_setaffinity};

fn main() {
    let around = std::env::var_os("LARDER_BENCH_DIR").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target"),
        PathBuf::from,
    );
    let root = around.join(format!("bench-store-{}", std::process::id()));
    fs::create_dir_all(&root).expect("the folder of the benchmark");
    let mut one = CpuSet::new();
    one.set(1);
    sched_setaffinity(None, &one).expect("one core");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let outcome = std::panic::catch_unwind(|| {
        let part = std::env::var("LARDER_BENCH_PART").unwrap_or_default();
        let wants = |name: &str| part.is_empty() || part == name;
        let mut aims = Aims::default();
        runtime.block_on(async {
            if wants("write") {
                writes::side_by_side(&root, &mut aims).await;
            }
            if part == "ack" {
                writes::acknowledged(&root).await;
            }
            if wants("read") {
                reads::warm(&root, &mut aims).await;
            }
            if wants("full") {
                writes::full(&root).await;
            }
            if wants("threshold") {
                writes::threshold(&root).await;
            }
            if wants("ratio") {
                ratio::hits(&root, &mut aims).await;
            }
            if wants("many") {
                many::objects(&root, &mut aims).await;
            }
        });
        aims.missed()
    });
    let _ = fs::remove_dir_all(&root);
    if outcome.unwrap_or(1) > 0 {
        std::process::exit(1);
    }
}
