//! Patterns of paths: `*` within a component, `**` across.

/// A compiled pattern.
///
/// `?` is any character of a component, `*` any number of them, `**` any text at all, and `/**/`
/// also a lone `/` (so that `/a/**/b` covers `/a/b`). Everything else stands for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<Token>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Text(Vec<u8>),
    One,
    Some,
    Any,
    /// `/**/`
    Folders,
}

impl Pattern {
    /// Compiles a pattern.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        let mut tokens = Vec::new();
        let mut text = Vec::new();
        let mut rest = pattern.as_bytes();
        while let [first, after @ ..] = rest {
            let (token, after) = if let Some(after) = rest.strip_prefix(b"/**/") {
                (Token::Folders, after)
            } else if let Some(after) = rest.strip_prefix(b"**") {
                (Token::Any, after)
            } else if *first == b'*' {
                (Token::Some, after)
            } else if *first == b'?' {
                (Token::One, after)
            } else {
                text.push(*first);
                rest = after;
                continue;
            };
            if !text.is_empty() {
                tokens.push(Token::Text(std::mem::take(&mut text)));
            }
            tokens.push(token);
            rest = after;
        }
        if !text.is_empty() {
            tokens.push(Token::Text(text));
        }
        Self(tokens)
    }

    /// Whether the whole of `path` fits.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        fits(&self.0, path.as_bytes())
    }
}

/// Matches without going back further than to the last wildcard of each kind: for `**` and for the
/// `*` after it. What is before a wildcard that matched never has to match differently.
fn fits(tokens: &[Token], path: &[u8]) -> bool {
    // Where to go on when the rest does not fit: the token after the wildcard, and the path from
    // which it is tried next. `within` is dropped at a slash.
    let mut across: Option<(usize, usize)> = None;
    let mut within: Option<(usize, usize)> = None;
    let (mut token, mut at) = (0, 0);
    loop {
        let step = match tokens.get(token) {
            None if at == path.len() => return true,
            None => None,
            Some(Token::Text(text)) => path[at..].starts_with(text).then_some(text.len()),
            Some(Token::One) => path.get(at).is_some_and(|byte| *byte != b'/').then_some(1),
            Some(Token::Some) => {
                within = Some((token + 1, at));
                Some(0)
            }
            Some(Token::Any) => {
                (across, within) = (Some((token + 1, at)), None);
                Some(0)
            }
            // Matches a lone slash now; later tries begin after each further slash.
            Some(Token::Folders) if path.get(at) == Some(&b'/') => {
                (across, within) = (Some((token + 1, at + 1)), None);
                Some(1)
            }
            Some(Token::Folders) => None,
        };
        if let Some(step) = step {
            (token, at) = (token + 1, at + step);
            continue;
        }
        if let Some((next, from)) = within {
            if path.get(from).is_some_and(|byte| *byte != b'/') {
                within = Some((next, from + 1));
                (token, at) = (next, from + 1);
                continue;
            }
            within = None;
        }
        let Some((next, from)) = across else {
            return false;
        };
        let folders = next > 0 && tokens.get(next - 1) == Some(&Token::Folders);
        let from = if folders {
            match path[from..].iter().position(|byte| *byte == b'/') {
                Some(slash) => from + slash + 1,
                None => return false,
            }
        } else if from < path.len() {
            from + 1
        } else {
            return false;
        };
        across = Some((next, from));
        (token, at) = (next, from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns() {
        for (pattern, path, fits) in [
            ("/usr/share/doc/**", "/usr/share/doc/bash/copyright", true),
            ("/usr/share/doc/**", "/usr/share/docs/x", false),
            ("/usr/share/doc/**", "/usr/share/doc", false),
            (
                "/usr/share/doc/**/copyright",
                "/usr/share/doc/a/b/copyright",
                true,
            ),
            (
                "/usr/share/doc/**/copyright",
                "/usr/share/doc/copyright",
                true,
            ),
            (
                "/usr/share/doc/**/copyright",
                "/usr/share/doc/acopyright",
                false,
            ),
            (
                "/usr/share/doc/*/copyright",
                "/usr/share/doc/a/b/copyright",
                false,
            ),
            ("/usr/lib/*.so.?", "/usr/lib/libc.so.6", true),
            ("/usr/lib/*.so.?", "/usr/lib/libc.so.10", false),
            ("/usr/lib/*.so.?", "/usr/lib/x/libc.so.6", false),
            ("**/x*z", "/a/xyz", true),
            ("**/x*z", "/a/xy/z", false),
            ("**/x*z", "/xy/a/xz", true),
            ("/a*b*c", "/abxbc", true),
            ("/a/**/*.h", "/a/b/c/d.h", true),
            (
                "kernel/net/netfilter/**",
                "kernel/net/netfilter/nf_tables.ko.xz",
                true,
            ),
            ("nf_*", "nf_tables", true),
            ("*", "", true),
            ("", "", true),
            ("", "x", false),
            ("?", "/", false),
            ("a/**/b/**/c", "a/x/b/b/y/c", true),
            ("a/**/b/**/c", "a/x/b/c/d", false),
        ] {
            assert_eq!(
                Pattern::new(pattern).matches(path),
                fits,
                "{pattern} {path}"
            );
        }
    }

    /// The same, tried in every way.
    fn slow(pattern: &[u8], path: &[u8]) -> bool {
        if let Some(rest) = pattern.strip_prefix(b"/**/") {
            return path.first() == Some(&b'/')
                && (1..=path.len()).any(|n| path[n - 1] == b'/' && slow(rest, &path[n..]));
        }
        if let Some(rest) = pattern.strip_prefix(b"**") {
            return (0..=path.len()).any(|n| slow(rest, &path[n..]));
        }
        match (pattern.split_first(), path.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => (0..=path.len())
                .take_while(|n| !path[..*n].contains(&b'/'))
                .any(|n| slow(rest, &path[n..])),
            (Some((b'?', rest)), Some((c, tail))) => *c != b'/' && slow(rest, tail),
            (Some((p, rest)), Some((c, tail))) => p == c && slow(rest, tail),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn as_if_tried_in_every_way(pattern in "[ab/*?]{0,9}", path in "[ab/]{0,9}") {
            let fits = Pattern::new(&pattern).matches(&path);
            prop_assert_eq!(fits, slow(pattern.as_bytes(), path.as_bytes()));
        }
    }
}
