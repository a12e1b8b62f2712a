//! Debian's control file format (deb822(5)): stanzas of `Name: value` separated by empty lines.
//!
//! Borrows from the text and allocates nothing: a Packages file of 54 MB has 69 000 stanzas of
//! which a lock needs about 130. Names of fields are compared without case, as apt does.

/// Splits a text into its stanzas, without the empty lines between them.
pub fn stanzas(text: &str) -> Stanzas<'_> {
    Stanzas { rest: text }
}

/// Iterator of [`stanzas`].
#[derive(Clone, Debug)]
pub struct Stanzas<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Stanzas<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let blank = |b: &u8| matches!(b, b' ' | b'\t' | b'\r' | b'\n');
        let line_end = |bytes: &[u8]| memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
        let mut rest = self.rest;
        loop {
            if rest.is_empty() {
                self.rest = rest;
                return None;
            }
            let (line, tail) = rest.split_at(line_end(rest.as_bytes()));
            if !line.bytes().all(|b| blank(&b)) {
                break;
            }
            rest = tail;
        }
        let bytes = rest.as_bytes();
        let mut end = 0;
        while end < bytes.len() {
            let line = line_end(&bytes[end..]);
            // Lines of nothing but blanks end a stanza too, in files that people write.
            if blank(&bytes[end]) && bytes[end..end + line].iter().all(blank) {
                break;
            }
            end += line;
        }
        let (stanza, tail) = rest.split_at(end);
        self.rest = tail;
        Some(stanza.trim_end_matches(['\n', '\r']))
    }
}

/// Splits a stanza into `(name, value)`; comment lines are left out.
///
/// A value is trimmed at both ends and holds its continuation lines as they stand
/// (`"\n more"`). A line that is neither a field nor a continuation gives an `Err` with its text.
pub fn fields(stanza: &str) -> Fields<'_> {
    Fields { rest: stanza }
}

/// Iterator of [`fields`].
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(&'a str, &'a str), &'a str>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.rest.is_empty() {
                return None;
            }
            let bytes = self.rest.as_bytes();
            let mut end = memchr::memchr(b'\n', bytes).unwrap_or(bytes.len());
            let comment = bytes[0] == b'#';
            // Comments may stand between a field and its continuation.
            let mut look = end;
            if !comment {
                loop {
                    let line_end = |from: usize| {
                        memchr::memchr(b'\n', &bytes[from..]).map_or(bytes.len(), |at| from + at)
                    };
                    match bytes.get(look + 1) {
                        Some(b' ' | b'\t') => {
                            look = line_end(look + 1);
                            end = look;
                        }
                        Some(b'#') => look = line_end(look + 1),
                        _ => break,
                    }
                }
            }
            let field = &self.rest[..end];
            self.rest = self.rest.get(end + 1..).unwrap_or("");
            if comment || field.trim().is_empty() {
                continue;
            }
            return Some(match memchr::memchr(b':', field.as_bytes()) {
                Some(colon) if colon > 0 && !field[..colon].contains([' ', '\t', '\n']) => {
                    Ok((&field[..colon], field[colon + 1..].trim()))
                }
                _ => Err(field.lines().next().unwrap_or("")),
            });
        }
    }
}

/// Line, from 1, on which a slice of `text` begins.
pub(crate) fn line_of(text: &str, slice: &str) -> usize {
    let offset = (slice.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    text.as_bytes()[..offset.min(text.len())]
        .iter()
        .filter(|b| **b == b'\n')
        .count()
        + 1
}

/// The value of one field of a stanza.
pub fn field<'a>(stanza: &'a str, name: &str) -> Option<&'a str> {
    fields(stanza)
        .flatten()
        .find(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

/// Fuzz target: whatever the bytes, splitting ends and yields slices of the input.
pub fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut total = 0;
    for stanza in stanzas(&text) {
        assert!(!stanza.is_empty());
        total += stanza.len();
        for (name, value) in fields(stanza).flatten() {
            assert!(!name.is_empty() && name.len() + value.len() < stanza.len());
        }
    }
    assert!(total <= text.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<Vec<Result<(&str, &str), &str>>> {
        stanzas(text)
            .map(|stanza| fields(stanza).collect())
            .collect()
    }

    #[test]
    fn stanzas_end_at_empty_and_blank_lines() {
        let text = "\n\nA: 1\nB: 2\n\n\nC: 3\n \t\nD: 4\n  \n";
        let expected: Vec<Vec<Result<_, &str>>> = vec![
            vec![Ok(("A", "1")), Ok(("B", "2"))],
            vec![Ok(("C", "3"))],
            vec![Ok(("D", "4"))],
        ];
        assert_eq!(split(text), expected);
        assert_eq!(stanzas("\n \n").count(), 0);
    }

    #[test]
    fn values_keep_their_continuations_and_lose_comments() {
        let text = "A: 1\n 2\n\t3\n# no\nB:\n# within\n x\nC:y";
        let expected: Vec<Vec<Result<_, &str>>> = vec![vec![
            Ok(("A", "1\n 2\n\t3")),
            Ok(("B", "# within\n x")),
            Ok(("C", "y")),
        ]];
        assert_eq!(split(text), expected);
        assert_eq!(field(text, "c"), Some("y"));
        assert_eq!(field(text, "D"), None);
    }

    #[test]
    fn lines_that_are_no_fields_are_told() {
        assert_eq!(
            split("A: 1\nnonsense\n: x\nB C: 2"),
            [[Ok(("A", "1")), Err("nonsense"), Err(": x"), Err("B C: 2")]]
        );
        let text = "A: 1\n\nB: 2";
        assert_eq!(
            stanzas(text).map(|s| line_of(text, s)).collect::<Vec<_>>(),
            [1, 3]
        );
    }
}
