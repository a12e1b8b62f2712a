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
        let rest = self.rest.trim_start_matches(['\n', '\r']);
        if rest.is_empty() {
            self.rest = rest;
            return None;
        }
        // A line of nothing but blanks ends a stanza too, in files that people write.
        let bytes = rest.as_bytes();
        let mut from = 0;
        let end = loop {
            let Some(newline) = memchr::memchr(b'\n', &bytes[from..]) else {
                break rest.len();
            };
            let line = from + newline + 1;
            match bytes.get(line) {
                None => break rest.len(),
                Some(b'\n') => break line,
                Some(b' ' | b'\t' | b'\r') => {
                    let blank = bytes[line..]
                        .iter()
                        .position(|b| !matches!(b, b' ' | b'\t' | b'\r'));
                    match blank {
                        None => break line,
                        Some(at) if bytes[line + at] == b'\n' => break line,
                        Some(_) => {}
                    }
                }
                Some(_) => {}
            }
            from = line;
        };
        let (stanza, tail) = rest.split_at(end);
        // What follows may be a line of blanks: skip to its end.
        self.rest = match tail.find('\n') {
            Some(at) if tail[..at].trim().is_empty() => &tail[at + 1..],
            _ if tail.trim().is_empty() => "",
            _ => tail,
        };
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
            while !comment && matches!(bytes.get(end + 1), Some(b' ' | b'\t')) {
                end =
                    memchr::memchr(b'\n', &bytes[end + 1..]).map_or(bytes.len(), |at| end + 1 + at);
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
