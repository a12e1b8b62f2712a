//! Objects on the servers before they are asked for, and none of the uploads afterwards.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::data::{self, Object};
use crate::generator::{Generator, Load, Request};
use crate::lines::{self, Line};
use crate::servers::Server;
use crate::tls;

/// Puts the objects of lines on all servers.
pub(crate) fn all(servers: &[Server], lines: &[&Line], files: &Path) {
    let objects: HashSet<Object> = lines.iter().flat_map(|line| line.objects()).collect();
    let plain: HashSet<Object> = lines
        .iter()
        .filter(|line| !line.tls)
        .flat_map(|line| line.objects())
        .collect();
    fs::create_dir_all(files).expect("a folder");
    for object in &objects {
        fs::write(files.join(object.id()), data::bytes(*object)).expect("a file");
    }
    for server in servers.iter().filter(|server| server.is_ours) {
        // Tuist's clients put at most 25 MiB at once; the large one is some other client's.
        upload(server, objects.iter().copied().collect(), false);
        upload(server, plain.iter().copied().collect(), true);
    }
}

fn upload(server: &Server, objects: Vec<Object>, free: bool) {
    let count = objects.len() as u64;
    if count == 0 {
        return;
    }
    let mut at = 0;
    let requests = move || {
        // After the last one some more are asked for, and are there already.
        let object = objects[at % objects.len()];
        at += 1;
        let bytes = Arc::new(data::bytes(object));
        let digest = lines::hex(&data::digest(&bytes));
        if free || lines::is_foreign(object) {
            Request {
                method: "PUT",
                path: lines::foreign(object),
                headers: Vec::new(),
                body: Some(bytes),
                status: 201,
                object: None,
            }
        } else {
            lines::put(true, &object.id(), &bytes, &digest)
        }
    };
    once(server, Box::new(requests), count);
}

/// Sends so many requests one after another.
pub(crate) fn once(server: &Server, requests: Box<dyn FnMut() -> Request + Send>, count: u64) {
    let mut generator = Generator::new(Load {
        address: server.https,
        tls: Some(tls::client(false, true)),
        http2: false,
        reads: true,
        connections: 1,
        depth: 1,
        requests,
    })
    .expect("a connection");
    generator
        .run_until(|counted, _| counted.answers >= count)
        .expect("uploads");
}

/// Removes what nginx was given, so that the disk does not fill.
pub(crate) fn forget_puts(root: &Path) {
    for suite in ["trixie", "sid"] {
        let folder = root.join(format!("nginx-{suite}/puts"));
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let _ = fs::remove_file(entry.path());
        }
    }
}
