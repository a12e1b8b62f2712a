//! Keys as people write them: `kind:account/project:hash`, with `:category` and `:name` behind it
//! where there are some. What could not be read is written as `%xx`.

use std::fmt::Write;

use store::{Key, Kind, Parts};

/// Writes a key.
pub(super) fn write(parts: &Parts) -> String {
    let [kind, account, project, category, hash, name] = parts.each();
    let mut text = String::new();
    escape(kind, &mut text);
    text.push(':');
    escape(account, &mut text);
    text.push('/');
    escape(project, &mut text);
    text.push(':');
    escape(hash, &mut text);
    if !category.is_empty() || !name.is_empty() {
        text.push(':');
        escape(category, &mut text);
    }
    if !name.is_empty() {
        text.push(':');
        escape(name, &mut text);
    }
    text
}

fn escape(part: &str, text: &mut String) {
    for character in part.chars() {
        if character.is_control() || matches!(character, ':' | '%' | ' ') || !character.is_ascii() {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                // Writing to a String cannot fail.
                let _ = write!(text, "%{byte:02x}");
            }
        } else {
            text.push(character);
        }
    }
}

/// Reads one. `None`: it is none.
pub(super) fn read(text: &str) -> Option<Key> {
    let mut parts = text.split(':');
    let decode = |part: &str| Some(crate::target::decode(part).ok()?.into_owned());
    let kind = Kind::of_name(parts.next()?)?;
    let (account, project) = parts.next()?.split_once('/')?;
    let key = Key {
        kind,
        account: decode(account)?,
        project: decode(project)?,
        hash: decode(parts.next()?)?,
        category: decode(parts.next().unwrap_or_default())?,
        name: decode(parts.next().unwrap_or_default())?,
    };
    parts.next().is_none().then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        for (text, category, name) in [
            ("xcode-cas:acme/app:ABC", "", ""),
            ("module:acme/app:h:builds:Name.zip", "builds", "Name.zip"),
            ("free:acme/app:some/deep/key", "", ""),
            (
                "free:acme/app:a%3ab%25%20%c3%a9%0a:turborepo",
                "turborepo",
                "",
            ),
            ("module:acme/app:h::n", "", "n"),
        ] {
            let key = read(text).unwrap();
            assert_eq!((&*key.category, &*key.name), (category, name));
        }
        let bad = [
            "",
            "free",
            "free:a",
            "free:a/b",
            "nothing:a/b:c",
            "free:a/b:%zz",
            "free:a/b:c:d:e:f",
        ];
        for bad in bad {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
