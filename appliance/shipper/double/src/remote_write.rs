//! Prometheus's remote write, 1.0 and 2.0.

use crate::protobuf::{Value, fields, varint};

/// One series of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Labels, the name (`__name__`) included.
    pub labels: Vec<(String, String)>,
    /// Bits of the value, and time in ms since 1970.
    pub samples: Vec<(u64, i64)>,
}

impl Series {
    /// A label's value.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
    }

    /// The value of the first sample.
    pub fn value(&self) -> f64 {
        f64::from_bits(self.samples[0].0)
    }

    /// Whether the first sample says that the series has ended.
    pub fn is_stale(&self) -> bool {
        self.samples[0].0 == 0x7ff0_0000_0000_0002
    }
}

/// Reads a request and checks what the specification demands of a sender.
///
/// # Errors
///
/// What is wrong.
pub fn decode(body: &[u8]) -> Result<Vec<Series>, String> {
    let raw = snap::raw::Decoder::new()
        .decompress_vec(body)
        .map_err(|error| error.to_string())?;
    let mut request = Vec::new();
    for (number, value) in fields(&raw)? {
        if number != 1 {
            continue;
        }
        let mut series = Series {
            labels: Vec::new(),
            samples: Vec::new(),
        };
        for (number, value) in fields(value.bytes()?)? {
            match number {
                1 => {
                    let mut pair = (String::new(), String::new());
                    for (number, value) in fields(value.bytes()?)? {
                        *(if number == 1 {
                            &mut pair.0
                        } else {
                            &mut pair.1
                        }) = value.text()?;
                    }
                    series.labels.push(pair);
                }
                2 => series.samples.push(sample(value.bytes()?)?),
                other => return Err(format!("unexpected field {other}")),
            }
        }
        check(&series)?;
        request.push(series);
    }
    Ok(request)
}

/// Reads a request of remote write 2.0 and checks what the specification demands of a sender.
///
/// # Errors
///
/// What is wrong.
pub fn decode_second(body: &[u8]) -> Result<Vec<Series>, String> {
    let raw = snap::raw::Decoder::new()
        .decompress_vec(body)
        .map_err(|error| error.to_string())?;
    let mut symbols = Vec::new();
    let mut request = Vec::new();
    for (number, value) in fields(&raw)? {
        match number {
            4 => symbols.push(value.text()?),
            5 => request.push(second_series(value.bytes()?, &symbols)?),
            other => return Err(format!("unexpected field {other}")),
        }
    }
    match symbols.first() {
        Some(first) if first.is_empty() => Ok(request),
        _ => Err("the first symbol is not empty".into()),
    }
}

fn second_series(raw: &[u8], symbols: &[String]) -> Result<Series, String> {
    let mut series = Series {
        labels: Vec::new(),
        samples: Vec::new(),
    };
    for (number, value) in fields(raw)? {
        match number {
            1 => {
                let mut rest = value.bytes()?;
                let mut texts = Vec::new();
                while !rest.is_empty() {
                    let symbol = varint(&mut rest)? as usize;
                    let text = symbols.get(symbol).ok_or("a symbol that is not there")?;
                    texts.push(text.clone());
                }
                for pair in texts.chunks(2) {
                    let [name, value] = pair else {
                        return Err("a name without a value".into());
                    };
                    series.labels.push((name.clone(), value.clone()));
                }
            }
            2 => series.samples.push(sample(value.bytes()?)?),
            other => return Err(format!("unexpected field {other}")),
        }
    }
    check(&series)?;
    Ok(series)
}

fn sample(raw: &[u8]) -> Result<(u64, i64), String> {
    let mut sample = (0, 0);
    for field in fields(raw)? {
        match field {
            (1, Value::Fixed64(bits)) => sample.0 = bits,
            (2, Value::Varint(time)) => sample.1 = time as i64,
            _ => return Err("proto: wrong wire type".into()),
        }
    }
    Ok(sample)
}

fn check(series: &Series) -> Result<(), String> {
    let labels = &series.labels;
    if !labels.is_sorted_by(|a, b| a.0 < b.0) {
        return Err(format!("labels are not sorted and unique: {labels:?}"));
    }
    if labels
        .iter()
        .any(|(name, value)| name.is_empty() || value.is_empty())
    {
        return Err(format!("there is an empty label: {labels:?}"));
    }
    if series.label("__name__").is_none() || series.samples.is_empty() {
        return Err(format!("no name or no sample: {labels:?}"));
    }
    Ok(())
}
