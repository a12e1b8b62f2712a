//! Hits of the store itself on the build-like trace, beside LRU.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use store::{Begun, Durability, Settings, Store, Terms};

use crate::common::{Aims, body, key, settings};
use crate::trace::{lru, trace};

pub(crate) async fn hits(root: &Path, aims: &mut Aims) {
    let requests = trace(8, 1 << 40);
    let objects: HashMap<u64, u64> = requests.iter().copied().collect();
    let footprint: u64 = objects.values().sum();
    println!(
        "\n{} requests for {} MB\n\n| share of the footprint | LRU | store | bytes copied per new byte |\n|---|---|---|---|",
        requests.len(),
        footprint >> 20
    );
    for percent in [10, 20] {
        let capacity = footprint / 100 * percent;
        let folder = root.join(format!("ratio{percent}"));
        fs::create_dir_all(&folder).expect("a folder");
        let store = Store::open_with(Settings {
            capacity: Some(capacity),
            segment_bytes: Some((capacity / 64) & !0xffff),
            ..settings(&folder, Durability::Lazy)
        })
        .await;
        let mut hits = 0_u64;
        for (object, bytes) in &requests {
            let key = key(*object);
            if store.touch(&key) {
                hits += 1;
                continue;
            }
            let terms = Terms {
                limit: 1 << 30,
                length: Some(*bytes),
                ..Terms::default()
            };
            let Begun::Upload(mut upload) = store.put(&key, terms).await.expect("put") else {
                continue;
            };
            upload
                .write(&body(*object, *bytes as usize))
                .await
                .expect("write");
            upload.finish().await.expect("finish");
        }
        let counts = store.usage().counts;
        store.close().await;
        let _ = fs::remove_dir_all(folder);
        let ratio = hits as f64 / requests.len() as f64;
        let (lru, copied) = (
            lru(&requests, capacity),
            counts.survivor_bytes as f64 / counts.stored_bytes as f64,
        );
        println!("| {percent} % | {lru:.4} | {ratio:.4} | {copied:.2} |");
        aims.hold(&format!("LRU's hits at {percent} %"), ratio >= lru - 0.001);
        aims.hold(&format!("0.3 bytes copied at {percent} %"), copied <= 0.3);
    }
}
