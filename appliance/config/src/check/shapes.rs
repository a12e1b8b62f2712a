//! Shapes of values that several tables have. Each function gives the value, or what would be right.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What would be right.
pub(super) type Shape<T> = Result<T, &'static str>;

/// A host name's label (RFC 1123), lower case.
pub(super) fn label(text: &str) -> Shape<()> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte != b'-' && plain(byte));
    let ends = edge(text.bytes().next()) && edge(text.bytes().last());
    if ends && text.len() <= 63 && text.bytes().all(plain) {
        Ok(())
    } else {
        Err("1 to 63 lower-case letters, digits and `-`, which is neither first nor last")
    }
}

/// A domain name of at least two labels.
pub(super) fn domain(text: &str) -> Shape<()> {
    let labels: Vec<&str> = text.split('.').collect();
    if labels.len() > 1 && text.len() <= 253 && labels.iter().all(|part| label(part).is_ok()) {
        Ok(())
    } else {
        Err("names separated by dots, lower case, as in \"cache.example.org\"")
    }
}

/// A host's name or address.
pub(super) fn server(text: &str) -> Shape<()> {
    let name = text.split('.').all(|part| label(part).is_ok()) && text.len() <= 253;
    if name || text.parse::<IpAddr>().is_ok() {
        Ok(())
    } else {
        Err("a host name or an IP address")
    }
}

/// A MAC address of one card.
pub(super) fn mac(text: &str) -> Shape<()> {
    let pair = |pair: &str| {
        let hex = pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit());
        if hex {
            u8::from_str_radix(pair, 16).ok()
        } else {
            None
        }
    };
    let bytes: Option<Vec<u8>> = text.split(':').map(pair).collect();
    match bytes.as_deref() {
        Some([first, rest @ ..]) if rest.len() == 5 => {
            if first & 1 == 1 {
                Err("that of one card: this one is a multicast address")
            } else if *first == 0 && rest.iter().all(|byte| *byte == 0) {
                Err("that of a card: this one is nobody's")
            } else {
                Ok(())
            }
        }
        _ => Err("six pairs of hexadecimal digits, as in \"52:54:00:12:34:56\""),
    }
}

/// A name that the kernel takes for an interface (`dev_valid_name`).
pub(super) fn interface(text: &str) -> Shape<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let reserved = [".", "..", "lo", "all", "default"].contains(&text);
    if !text.is_empty() && text.len() <= 15 && text.bytes().all(plain) && !reserved {
        Ok(())
    } else {
        Err("1 to 15 letters, digits, `-`, `_` and `.`, as in \"ens3\"")
    }
}

/// An IP address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefixed {
    pub(super) address: IpAddr,
    pub(super) length: u8,
}

impl Prefixed {
    pub(super) fn parse(text: &str) -> Shape<Self> {
        let Some((address, length)) = text.split_once('/') else {
            return Err(match text.parse::<IpAddr>() {
                Ok(IpAddr::V4(_)) => {
                    "with the length of the network's prefix, as in \"203.0.113.7/24\", or /32 for one alone"
                }
                Ok(IpAddr::V6(_)) => {
                    "with the length of the network's prefix, as in \"2001:db8::7/64\", or /128 for one alone"
                }
                Err(_) => {
                    "an IP address with a prefix length, as in \"203.0.113.7/24\" or \"2001:db8::7/64\""
                }
            });
        };
        let address: IpAddr = address.parse().map_err(
            |_| "an IP address before the `/`, as in \"203.0.113.7/24\" or \"2001:db8::7/64\"",
        )?;
        let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
        let length = length.parse().ok().filter(|_| digits).unwrap_or(u8::MAX);
        match address {
            IpAddr::V4(_) if length > 32 => Err("a prefix length from 0 to 32 after the `/`"),
            IpAddr::V6(_) if length > 128 => Err("a prefix length from 0 to 128 after the `/`"),
            _ => Ok(Self { address, length }),
        }
    }

    /// The network that it is in.
    pub(super) fn network(&self) -> Self {
        let bits = u32::from(self.length);
        let address = match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(address) & mask))
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(address) & mask))
            }
        };
        Self {
            address,
            length: self.length,
        }
    }

    /// Whether an address is in its network.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        let other = Self {
            address,
            length: self.length,
        };
        self.address.is_ipv4() == address.is_ipv4() && other.network() == self.network()
    }

    /// Whether two networks have an address in common.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let (wide, narrow) = if self.length <= other.length {
            (self, other)
        } else {
            (other, self)
        };
        wide.contains(narrow.address)
    }
}

/// A network: nothing after its prefix.
pub(super) fn network(text: &str) -> Result<Prefixed, String> {
    let found = Prefixed::parse(text)?;
    let network = found.network();
    if found == network {
        Ok(network)
    } else {
        Err(format!(
            "the network is {}/{}",
            network.address, network.length
        ))
    }
}

/// A port or a range of ports, `443` or `9100-9155`.
pub(super) fn ports(text: &str) -> Shape<(u16, u16)> {
    let one = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|port| digits && *port > 0)
    };
    let wrong = "a port from 1 to 65535, or a range, as in \"443\" or \"9100-9155\"";
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    match (one(low), one(high)) {
        (Some(low), Some(high)) if low <= high => Ok((low, high)),
        (Some(_), Some(_)) => Err("the lower port first"),
        _ => Err(wrong),
    }
}

/// Text on one line, for files that are read by lines.
pub(super) fn line(text: &str) -> Shape<()> {
    if text.trim().is_empty() {
        Err("some text")
    } else if text.contains(char::is_control) {
        Err("text on one line, without control characters")
    } else {
        Ok(())
    }
}

/// Whether every byte is a letter, a digit or one of `more`, and there is at least one.
pub(super) fn word(text: &str, more: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || more.as_bytes().contains(&byte);
    !text.is_empty() && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        let parse = |text| Prefixed::parse(text).unwrap();
        assert!(parse("203.0.113.7/24").contains("203.0.113.1".parse().unwrap()));
        assert!(!parse("203.0.113.7/32").contains("203.0.113.1".parse().unwrap()));
        assert!(parse("0.0.0.0/0").contains("203.0.113.1".parse().unwrap()));
        assert!(!parse("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert!(parse("2001:db8::7/64").contains("2001:db8::1".parse().unwrap()));
        assert!(parse("10.0.0.0/8").overlaps(&parse("10.1.0.0/16")));
        assert!(!parse("10.0.0.0/16").overlaps(&parse("10.1.0.0/16")));
        assert_eq!(
            network("10.1.0.0/8").unwrap_err(),
            "the network is 10.0.0.0/8"
        );
        for wrong in [
            "",
            "/",
            "1.2.3.4/33",
            "1.2.3.4/+3",
            "::/129",
            "1.2.3/8",
            "::1",
            "1.2.3.4/256",
        ] {
            assert!(Prefixed::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn small_shapes() {
        for right in ["a", "cache-eu-central", "1"] {
            assert!(label(right).is_ok(), "{right}");
        }
        for wrong in ["", "-a", "a-", "A", "a.b", "a_b", "é", &"a".repeat(64)] {
            assert!(label(wrong).is_err(), "{wrong}");
        }
        assert_eq!(ports("9100-9155"), Ok((9100, 9155)));
        for wrong in ["", "0", "70000", "2-1", "1-", "-1", "+1", "1-2-3", "http"] {
            assert!(ports(wrong).is_err(), "{wrong}");
        }
        assert!(mac("52:54:00:12:34:56").is_ok() && mac("52:54:00:aB:34:56").is_ok());
        for wrong in [
            "",
            "52:54:00:12:34",
            "52-54-00-12-34-56",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "+1:54:00:12:34:56",
        ] {
            assert!(mac(wrong).is_err(), "{wrong}");
        }
    }
}
