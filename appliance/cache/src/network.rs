//! Networks whose clients may come without TLS.

use std::net::IpAddr;
use std::str::FromStr;

/// A private network: an address and the length of its prefix, as `10.1.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is no private network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoNetwork {
    /// It is not written as one.
    #[error("it is not an address and a prefix, as 10.1.0.0/16")]
    Form,
    /// There are bits behind the prefix.
    #[error("the address has bits set behind the prefix")]
    Bits,
    /// It is not private as a whole.
    #[error(
        "it is not private as a whole: 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10, \
         127.0.0.0/8, fc00::/7, fe80::/10 and ::1 are"
    )]
    Public,
}

/// Private networks (RFC 1918, 6598, 4193, 4291) and loopback.
const PRIVATE: [(&str, u8); 8] = [
    ("10.0.0.0", 8),
    ("172.16.0.0", 12),
    ("192.168.0.0", 16),
    ("100.64.0.0", 10),
    ("127.0.0.0", 8),
    ("fc00::", 7),
    ("fe80::", 10),
    ("::1", 128),
];

impl Network {
    /// Whether an address is in it; one of IPv4 that came over an IPv6 socket counts as what it is.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (ours, length) = bits(self.address);
        let (theirs, other) = bits(address.to_canonical());
        length == other
            && (ours ^ theirs)
                .checked_shr(u32::from(length - self.prefix))
                .unwrap_or(0)
                == 0
    }
}

/// The bits of an address, and how many there are.
fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    }
}

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let (address, prefix) = text.split_once('/').ok_or(NoNetwork::Form)?;
        let address: IpAddr = address.parse().map_err(|_| NoNetwork::Form)?;
        let digits = prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix: u8 = prefix.parse().map_err(|_| NoNetwork::Form)?;
        let (value, length) = bits(address);
        if prefix > length || !digits {
            return Err(NoNetwork::Form);
        }
        let host = u32::from(length - prefix);
        if host > 0 && value << (128 - host) != 0 {
            return Err(NoNetwork::Bits);
        }
        let within = |(whole, least): &(&str, u8)| {
            let whole = whole.parse().map(|address| Self {
                address,
                prefix: *least,
            });
            prefix >= *least && whole.is_ok_and(|whole| whole.contains(address))
        };
        if !PRIVATE.iter().any(within) {
            return Err(NoNetwork::Public);
        }
        Ok(Self { address, prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_in_or_out() {
        let has = |network: &str, address: &str| {
            let network: Network = network.parse().unwrap();
            network.contains(address.parse().unwrap())
        };
        assert!(has("10.1.0.0/16", "10.1.255.255"));
        assert!(has("10.1.0.0/16", "::ffff:10.1.2.3"));
        assert!(!has("10.1.0.0/16", "10.2.0.0"));
        assert!(!has("10.1.0.0/16", "::a01:203"));
        assert!(has("192.168.7.7/32", "192.168.7.7") && !has("192.168.7.7/32", "192.168.7.6"));
        assert!(has("fd00::/8", "fd12::1") && !has("fd00::/8", "fc12::1"));
        assert!(has("::1/128", "::1") && !has("::1/128", "127.0.0.1"));
    }

    #[test]
    fn only_private_networks_are_taken() {
        let why = |text: &str| text.parse::<Network>().unwrap_err();
        for bad in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0.0/x",
            "10.0.0.0/+8",
            "a/8",
            "10.0.0/8",
        ] {
            assert_eq!(why(bad), NoNetwork::Form, "{bad}");
        }
        assert_eq!(why("10.1.0.1/16"), NoNetwork::Bits);
        for public in [
            "0.0.0.0/0",
            "::/0",
            "8.8.8.0/24",
            "10.0.0.0/7",
            "172.0.0.0/8",
            "2001:db8::/32",
        ] {
            assert_eq!(why(public), NoNetwork::Public, "{public}");
        }
    }
}
