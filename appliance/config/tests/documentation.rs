//! The examples of `docs/configuration.md` are right.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::path::Path;

use config::{Cache, Fleet, Image, System};

/// A sound file without the tables that `example` has itself.
fn around(file: &str, example: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(file);
    let mut sound: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
    let example: toml::Table = example.parse().unwrap();
    for (key, value) in example {
        match (sound.get_mut(&key), value) {
            (Some(toml::Value::Table(there)), toml::Value::Table(more)) => there.extend(more),
            (_, value) => {
                sound.insert(key, value);
            }
        }
    }
    toml::to_string(&sound).unwrap()
}

#[test]
fn examples() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let text = std::fs::read_to_string(path).unwrap();
    let blocks = text.split("```toml\n").skip(1);
    let mut found = 0;
    for block in blocks.map(|block| block.split("```").next().unwrap()) {
        let (file, example) = block.split_once('\n').unwrap();
        let file = file.strip_prefix("# ").unwrap();
        let whole = around(file, example);
        let path = Path::new(file);
        match file {
            "fleet.toml" => drop(Fleet::parse(path, &whole).unwrap_or_else(|e| panic!("{e}"))),
            "system.toml" => drop(System::parse(path, &whole).unwrap_or_else(|e| panic!("{e}"))),
            "cache.toml" => drop(Cache::parse(path, &whole).unwrap_or_else(|e| panic!("{e}"))),
            "image.toml" => drop(Image::parse(path, &whole).unwrap_or_else(|e| panic!("{e}"))),
            other => panic!("{other}"),
        }
        found += 1;
    }
    assert_eq!(found, 8);
}
