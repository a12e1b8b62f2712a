//! Results of actions and the blobs that they name: Bazel's `ActionResult`
//! (build.bazel.remote.execution.v2), and moon's JSON of the same.

use serde_json::Value as Json;

use super::protobuf::{NoMessage, Value, fields};
use crate::transfer::json;

/// SHA-256 of nothing: clients name the empty blob and never store it.
pub(crate) const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// Deepest nesting of JSON that is searched.
const DEPTH: usize = 32;

/// The blobs that a result names, by SHA-256 in lower case.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Named {
    /// All of them but the empty one.
    pub(crate) blobs: Vec<String>,
    /// Those of them that are trees, which name blobs in turn.
    pub(crate) trees: Vec<String>,
}

/// What a result names. `None`: the bytes are no result in a form that is known.
pub(crate) fn parse(bytes: &[u8]) -> Option<Named> {
    let mut named = Named::default();
    if bytes.first() == Some(&b'{') {
        search(&json::parse(bytes).ok()?, &mut named, DEPTH);
    } else {
        result(bytes, &mut named).ok()?;
    }
    finish(&mut named.blobs);
    finish(&mut named.trees);
    Some(named)
}

/// The blobs that a tree (`Tree` of the same API) names. `None`: it is none.
pub(crate) fn tree(bytes: &[u8]) -> Option<Vec<String>> {
    let mut blobs = Vec::new();
    for field in fields(bytes) {
        // root = 1, children = 2: Directory, whose files = 1 are FileNode with digest = 2.
        if let (1 | 2, Value::Bytes(directory)) = field.ok()? {
            for field in fields(directory) {
                if let (1, Value::Bytes(file)) = field.ok()? {
                    blobs.extend(digest_in(file, 2).ok()?);
                }
            }
        }
    }
    finish(&mut blobs);
    Some(blobs)
}

fn finish(blobs: &mut Vec<String>) {
    blobs.retain(|blob| blob != EMPTY);
    blobs.sort_unstable();
    blobs.dedup();
}

fn result(bytes: &[u8], named: &mut Named) -> Result<(), NoMessage> {
    for field in fields(bytes) {
        match field? {
            // output_files = 2 (OutputFile, digest = 2)
            (2, Value::Bytes(file)) => named.blobs.extend(digest_in(file, 2)?),
            // output_directories = 3 (OutputDirectory, tree_digest = 3)
            (3, Value::Bytes(directory)) => {
                let tree = digest_in(directory, 3)?;
                named.blobs.extend(tree.clone());
                named.trees.extend(tree);
            }
            // stdout_digest = 6, stderr_digest = 8
            (6 | 8, Value::Bytes(message)) => named.blobs.push(digest(message)?),
            // exit_code = 4
            (4, Value::Number(_)) => {}
            // stdout_raw = 5, stderr_raw = 7, execution_metadata = 9, symlinks = 10, 11, 12
            (5 | 7 | 9..=12, Value::Bytes(_)) => {}
            // Something else, or a newer field: it is not known what it names.
            _ => return Err(NoMessage),
        }
    }
    Ok(())
}

/// The digest in a field of a message, if there is one.
fn digest_in(message: &[u8], number: u64) -> Result<Option<String>, NoMessage> {
    let mut found = None;
    for field in fields(message) {
        if let (known, Value::Bytes(message)) = field?
            && known == number
        {
            found = Some(digest(message)?);
        }
    }
    Ok(found)
}

/// `Digest`: hash = 1, size_bytes = 2.
fn digest(message: &[u8]) -> Result<String, NoMessage> {
    let mut hash = None;
    for field in fields(message) {
        match field? {
            (1, Value::Bytes(bytes)) => hash = hex(bytes),
            (2, Value::Number(_)) => {}
            _ => return Err(NoMessage),
        }
    }
    hash.ok_or(NoMessage)
}

/// 64 hexadecimal digits, in lower case.
fn hex(bytes: &[u8]) -> Option<String> {
    let fits = bytes.len() == 64 && bytes.iter().all(u8::is_ascii_hexdigit);
    fits.then(|| String::from_utf8_lossy(bytes).to_ascii_lowercase())
}

/// Finds every object with the members `hash` and `sizeBytes`.
fn search(value: &Json, named: &mut Named, depth: usize) {
    let Some(depth) = depth.checked_sub(1) else {
        return;
    };
    match value {
        Json::Array(list) => list.iter().for_each(|each| search(each, named, depth)),
        Json::Object(members) => {
            let hash = members.get("hash").and_then(Json::as_str);
            let size = members.contains_key("sizeBytes") || members.contains_key("size_bytes");
            if let Some(hash) = hash.filter(|_| size).and_then(|text| hex(text.as_bytes())) {
                named.blobs.push(hash);
            }
            for (name, each) in members {
                if name == "treeDigest" {
                    let hash = each["hash"].as_str();
                    named
                        .trees
                        .extend(hash.and_then(|text| hex(text.as_bytes())));
                }
                search(each, named, depth);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut field = vec![number << 3 | 2];
        let length = bytes.len();
        if length > 127 {
            field.push(length as u8 | 0x80);
            field.push((length >> 7) as u8);
        } else {
            field.push(length as u8);
        }
        field.extend_from_slice(bytes);
        field
    }

    fn digest(hash: &str) -> Vec<u8> {
        [field(1, hash.as_bytes()), vec![0x10, 7]].concat()
    }

    fn hash(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    #[test]
    fn a_result_names_files_trees_and_outputs() {
        let file = [
            field(1, b"bin/a"),
            field(2, &digest(&hash('a'))),
            vec![0x20, 1],
        ]
        .concat();
        let directory = [field(1, b"dir"), field(3, &digest(&hash('b')))].concat();
        let bytes = [
            field(2, &file),
            field(3, &directory),
            vec![0x20, 0],
            field(5, b"raw"),
            field(6, &digest(&hash('c'))),
            field(8, &digest(EMPTY)),
            field(9, b"whatever"),
        ]
        .concat();
        let named = parse(&bytes).unwrap();
        assert_eq!(named.blobs, [hash('a'), hash('b'), hash('c')]);
        assert_eq!(named.trees, [hash('b')]);
        assert_eq!(parse(b"").unwrap(), Named::default());
    }

    #[test]
    fn a_tree_names_the_files_of_all_its_directories() {
        let file = |digit| {
            field(
                1,
                &[field(1, b"f"), field(2, &digest(&hash(digit)))].concat(),
            )
        };
        let below = field(2, &[field(1, b"d"), field(2, &digest(&hash('9')))].concat());
        let tree_bytes = [
            field(1, &[file('1'), below].concat()),
            field(2, &[file('2'), file('1')].concat()),
        ]
        .concat();
        assert_eq!(tree(&tree_bytes).unwrap(), [hash('1'), hash('2')]);
        assert_eq!(tree(&[0x0a, 0x7f]), None);
    }

    #[test]
    fn json_of_a_result_names_the_same() {
        let text = format!(
            r#"{{"outputFiles":[{{"path":"a","digest":{{"hash":"{}","sizeBytes":3}}}}],
            "outputDirectories":[{{"treeDigest":{{"hash":"{}","sizeBytes":"4"}}}}],
            "stdoutDigest":{{"hash":"{EMPTY}","sizeBytes":0}}, "exitCode":0,
            "executionMetadata":{{"hash":"{}"}}}}"#,
            hash('A'),
            hash('b'),
            hash('c')
        );
        let named = parse(text.as_bytes()).unwrap();
        assert_eq!(named.blobs, [hash('a'), hash('b')]);
        assert_eq!(named.trees, [hash('b')]);
    }

    #[test]
    fn what_other_clients_write_is_no_result() {
        for other in [
            &b"cc ac\x00\x01"[..],
            b"\x1f\x8b\x08\x00",
            b"{",
            b"\x12\x02\x12\x00",
            b"\x7a\x00",
        ] {
            assert_eq!(parse(other), None, "{other:?}");
        }
    }
}
