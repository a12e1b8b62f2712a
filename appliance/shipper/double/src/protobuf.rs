//! Reading of protobuf messages.

/// A field's value.
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    pub(crate) fn bytes(self) -> Result<&'a [u8], String> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err("proto: wrong wire type".into()),
        }
    }

    pub(crate) fn text(self) -> Result<String, String> {
        let text = std::str::from_utf8(self.bytes()?);
        text.map(str::to_owned)
            .map_err(|_| "proto: invalid UTF-8".into())
    }

    pub(crate) fn number(self) -> Result<i64, String> {
        match self {
            Self::Varint(number) => Ok(number as i64),
            _ => Err("proto: wrong wire type".into()),
        }
    }
}

/// The fields of a message, by number.
pub(crate) fn fields(mut message: &[u8]) -> Result<Vec<(u32, Value<'_>)>, String> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let value = match tag & 7 {
            0 => Value::Varint(varint(&mut message)?),
            1 => {
                let (bytes, rest) = message.split_first_chunk().ok_or("proto: unexpected EOF")?;
                message = rest;
                Value::Fixed64(u64::from_le_bytes(*bytes))
            }
            2 => {
                let length = varint(&mut message)? as usize;
                let bytes = message.get(..length).ok_or("proto: unexpected EOF")?;
                message = &message[length..];
                Value::Bytes(bytes)
            }
            other => return Err(format!("proto: illegal wireType {other}")),
        };
        fields.push(((tag >> 3) as u32, value));
    }
    Ok(fields)
}

/// A base-128 varint, which is taken off.
pub(crate) fn varint(message: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = message.split_first().ok_or("proto: unexpected EOF")?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("proto: integer overflow".into())
}
