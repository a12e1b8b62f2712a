//! Reading of Prometheus's text format 0.0.4, as scraped from services.

use super::sample::{Kind, Sink};

/// Most samples of one scrape.
const SAMPLES: usize = 50_000;

/// What a scraped text came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Text {
    /// Samples in it.
    pub samples: usize,
}

/// Reads a text and gives its samples to a sink. Times in it are ignored: samples are of the time
/// of the scrape.
///
/// # Errors
///
/// The number of the line that is not understood. What was before it has gone to the sink.
pub fn parse(text: &str, sink: &mut dyn Sink) -> Result<Text, String> {
    let mut result = Text::default();
    let mut last = String::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if result.samples == SAMPLES {
            return Err(format!("there are more than {SAMPLES} samples"));
        }
        let bad = || format!("line {} is no sample", at + 1);
        let (name, labels, value) = sample(line).ok_or_else(bad)?;
        if name != last {
            sink.family(name, Kind::Untyped);
            name.clone_into(&mut last);
        }
        let labels: Vec<_> = labels
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        sink.sample(&labels, value);
        result.samples += 1;
    }
    Ok(result)
}

type Sample<'a> = (&'a str, Vec<(&'a str, String)>, f64);

fn sample(line: &str) -> Option<Sample<'_>> {
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))?;
    let (name, mut rest) = line.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let mut labels = Vec::new();
    rest = rest.trim_start();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            rest = rest.trim_start();
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (label, after) = rest.split_once('=')?;
            let label = label.trim();
            let valid = label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if label.is_empty() || !valid || labels.iter().any(|(other, _)| *other == label) {
                return None;
            }
            let (value, after) = quoted(after.trim_start().strip_prefix('"')?)?;
            labels.push((label, value));
            rest = after.trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
    }
    let mut words = rest.split_ascii_whitespace();
    let value = match words.next()? {
        "+Inf" | "Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        word => word.parse().ok()?,
    };
    let rest_is_time = words.next().is_none_or(|word| word.parse::<i64>().is_ok());
    (rest_is_time && words.next().is_none()).then_some((name, labels, value))
}

/// A label's value up to the closing quote, and what follows that.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::TextSink;

    #[test]
    fn reads_what_it_writes() {
        let text = "# TYPE a untyped\na 1\na{b=\"c\",d=\"e\\\"\\\\\\n\"} 2.5\n# TYPE x untyped\nx{y=\"z\"} -3\n";
        let mut sink = TextSink::default();
        assert_eq!(parse(text, &mut sink).unwrap().samples, 3);
        assert_eq!(sink.text, text);
    }

    #[test]
    fn variants() {
        let mut sink = TextSink::default();
        let text = "a { b = \"c\" , } +Inf 1700000000000\n\n# anything\nb:c NaN\nd 1e3";
        parse(text, &mut sink).unwrap();
        assert!(sink.text.contains("a{b=\"c\"} inf\n"), "{}", sink.text);
        assert!(sink.text.contains("b:c NaN\n") && sink.text.contains("d 1000\n"));
    }

    #[test]
    fn nonsense_is_refused_with_its_line() {
        for bad in [
            "a",
            "a{",
            "a{b} 1",
            "a{b=\"c} 1",
            "1a 2",
            "a 1 2 3",
            "a x",
            "<html>",
            "a{b=\"c\",b=\"d\"} 1",
            "{a=\"b\"} 1",
        ] {
            let error = parse(&format!("ok 1\n{bad}"), &mut TextSink::default()).unwrap_err();
            assert!(error.starts_with("line 2"), "{bad}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[a-z{}=\"\\\\, 0-9\n#ä]{0,60}") {
            let _ = parse(&text, &mut TextSink::default());
        }
    }
}
