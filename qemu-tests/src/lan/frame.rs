//! Ethernet frames, as far as the gateway needs them: 802.1Q tags, ARP (RFC 826), ICMP echo
//! (RFC 792), neighbour discovery (RFC 4861) and ICMPv6 echo (RFC 4443).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::GATEWAY_MAC;

/// A MAC address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl std::fmt::Debug for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hex: Vec<String> = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        f.write_str(&hex.join(":"))
    }
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Sender.
    pub from: Mac,
    /// Receiver.
    pub to: Mac,
    /// Its 802.1Q tag.
    pub vlan: Option<u16>,
    /// What it carries.
    pub payload: Payload,
}

/// What a frame carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// ARP for IPv4.
    Arp {
        /// Request or reply.
        request: bool,
        /// Who asks or answers.
        sender: Ipv4Addr,
        /// Whom it is about.
        target: Ipv4Addr,
    },
    /// IPv4.
    Ipv4 {
        /// Source.
        source: Ipv4Addr,
        /// Destination.
        destination: Ipv4Addr,
        /// Protocol number.
        protocol: u8,
    },
    /// Neighbour solicitation.
    Solicitation {
        /// Who asks; unspecified while it probes an address of its own.
        source: Ipv6Addr,
        /// Whom it looks for.
        target: Ipv6Addr,
    },
    /// IPv6.
    Ipv6 {
        /// Source.
        source: Ipv6Addr,
        /// Destination.
        destination: Ipv6Addr,
        /// Number of the next header.
        protocol: u8,
    },
    /// Anything else, by its EtherType (LACP: 0x8809).
    Other(u16),
}

const TYPE_IPV4: u16 = 0x0800;
const TYPE_ARP: u16 = 0x0806;
const TYPE_VLAN: u16 = 0x8100;
const TYPE_IPV6: u16 = 0x86dd;
const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_ICMPV6: u8 = 58;

impl Frame {
    /// Parses a frame; `None` for what is too short to be one.
    pub fn parse(bytes: &[u8]) -> Option<Frame> {
        let to = Mac(*bytes.first_chunk()?);
        let from = Mac(*bytes.get(6..)?.first_chunk()?);
        let (vlan, body) = body(bytes)?;
        let ethertype = word(bytes, body - 2)?;
        let payload = parse_payload(ethertype, &bytes[body..]).unwrap_or(Payload::Other(ethertype));
        Some(Frame {
            from,
            to,
            vlan,
            payload,
        })
    }
}

/// VLAN and offset of what follows the EtherType.
fn body(bytes: &[u8]) -> Option<(Option<u16>, usize)> {
    match word(bytes, 12)? {
        TYPE_VLAN => {
            word(bytes, 16)?;
            Some((Some(word(bytes, 14)? & 0xfff), 18))
        }
        _ => Some((None, 14)),
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn ipv4(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(*bytes.get(at..)?.first_chunk::<4>()?))
}

fn ipv6(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from(*bytes.get(at..)?.first_chunk::<16>()?))
}

fn parse_payload(ethertype: u16, body: &[u8]) -> Option<Payload> {
    match ethertype {
        TYPE_ARP => Some(Payload::Arp {
            request: word(body, 6)? == 1,
            sender: ipv4(body, 14)?,
            target: ipv4(body, 24)?,
        }),
        TYPE_IPV4 => Some(Payload::Ipv4 {
            source: ipv4(body, 12)?,
            destination: ipv4(body, 16)?,
            protocol: *body.get(9)?,
        }),
        TYPE_IPV6 => {
            let (source, destination) = (ipv6(body, 8)?, ipv6(body, 24)?);
            let protocol = *body.get(6)?;
            if protocol == PROTOCOL_ICMPV6 && body.get(40) == Some(&135) {
                return Some(Payload::Solicitation {
                    source,
                    target: ipv6(body, 48)?,
                });
            }
            Some(Payload::Ipv6 {
                source,
                destination,
                protocol,
            })
        }
        _ => None,
    }
}

/// The gateway's answer to a frame, if it is for one of its addresses.
pub(super) fn answer(
    bytes: &[u8],
    frame: &Frame,
    addresses4: &[Ipv4Addr],
    addresses6: &[Ipv6Addr],
) -> Option<Vec<u8>> {
    let (_, at) = body(bytes)?;
    let body = &bytes[at..];
    match frame.payload {
        Payload::Arp {
            request: true,
            target,
            ..
        } if addresses4.contains(&target) => {
            let mut arp = body.get(..28)?.to_vec();
            let asker: [u8; 10] = *body.get(8..)?.first_chunk()?;
            arp[7] = 2;
            arp[8..14].copy_from_slice(&GATEWAY_MAC.0);
            arp[14..18].copy_from_slice(&target.octets());
            arp[18..28].copy_from_slice(&asker);
            Some(envelope(&bytes[..at], frame, &arp))
        }
        Payload::Ipv4 {
            source,
            destination,
            protocol: PROTOCOL_ICMP,
        } if addresses4.contains(&destination) => {
            let length = usize::from(word(body, 2)?);
            let header = usize::from(body.first()? & 0xf) * 4;
            let mut packet = body.get(..length)?.to_vec();
            (*packet.get(header)? == 8).then_some(())?;
            packet[12..16].copy_from_slice(&destination.octets());
            packet[16..20].copy_from_slice(&source.octets());
            packet[header] = 0;
            packet.get_mut(header + 2..header + 4)?.fill(0);
            let sum = checksum(&[&packet[header..]]);
            packet[header + 2..header + 4].copy_from_slice(&sum.to_be_bytes());
            Some(envelope(&bytes[..at], frame, &packet))
        }
        Payload::Solicitation { source, target } if addresses6.contains(&target) => {
            // Flags solicited and override; option 2: our link-layer address.
            let mut message = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
            message.extend(target.octets());
            message.extend([2, 1]);
            message.extend(GATEWAY_MAC.0);
            Some(envelope(
                &bytes[..at],
                frame,
                &icmpv6(target, source, message),
            ))
        }
        Payload::Ipv6 {
            source,
            destination,
            protocol: PROTOCOL_ICMPV6,
        } if addresses6.contains(&destination) && body.get(40) == Some(&128) => {
            let length = usize::from(word(body, 4)?);
            let mut message = body.get(40..)?.get(..length)?.to_vec();
            message[0] = 129;
            message.get_mut(2..4)?.fill(0);
            Some(envelope(
                &bytes[..at],
                frame,
                &icmpv6(destination, source, message),
            ))
        }
        _ => None,
    }
}

/// The frame's own header, turned around, with another body.
fn envelope(header: &[u8], frame: &Frame, body: &[u8]) -> Vec<u8> {
    let mut bytes = header.to_vec();
    bytes[..6].copy_from_slice(&frame.from.0);
    bytes[6..12].copy_from_slice(&GATEWAY_MAC.0);
    bytes.extend(body);
    // The shortest Ethernet frame, without its checksum.
    bytes.resize(bytes.len().max(60), 0);
    bytes
}

/// An IPv6 packet with an ICMPv6 message whose checksum (bytes 2 and 3) is filled in. Neighbour
/// discovery demands the hop limit 255.
fn icmpv6(from: Ipv6Addr, to: Ipv6Addr, mut message: Vec<u8>) -> Vec<u8> {
    let length = u16::try_from(message.len())
        .unwrap_or(u16::MAX)
        .to_be_bytes();
    let pseudo = [0, 0, length[0], length[1], 0, 0, 0, PROTOCOL_ICMPV6];
    let sum = checksum(&[&from.octets(), &to.octets(), &pseudo, &message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], PROTOCOL_ICMPV6, 255];
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(message);
    packet
}

/// The Internet checksum (RFC 1071). All parts but the last have an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u32::from(u16::from_be_bytes([pair[0], low]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
pub(super) mod test_frames {
    use super::*;

    /// 10.0.0.2 at 52:54:00:12:34:57 asks who has `target`.
    pub(crate) fn arp_request(vlan: Option<u16>, target: Ipv4Addr) -> Vec<u8> {
        let mut bytes = vec![0xff; 6];
        bytes.extend([0x52, 0x54, 0, 0x12, 0x34, 0x57]);
        if let Some(vlan) = vlan {
            bytes.extend(TYPE_VLAN.to_be_bytes());
            bytes.extend(vlan.to_be_bytes());
        }
        bytes.extend(TYPE_ARP.to_be_bytes());
        bytes.extend([0, 1, 8, 0, 6, 4, 0, 1]);
        bytes.extend([0x52, 0x54, 0, 0x12, 0x34, 0x57, 10, 0, 0, 2]);
        bytes.extend([0; 6]);
        bytes.extend(target.octets());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ping6(target: Ipv6Addr) -> Vec<u8> {
        let source: Ipv6Addr = "fe80::2".parse().unwrap();
        let mut bytes = vec![
            0x52, 0x54, 0, 0, 0, 1, 0x52, 0x54, 0, 0x12, 0x34, 0x57, 0x86, 0xdd,
        ];
        bytes.extend(icmpv6(
            source,
            target,
            vec![128, 0, 0, 0, 0, 1, 0, 1, b'x', b'y', b'z'],
        ));
        bytes
    }

    #[test]
    fn checksum_of_the_rfc() {
        assert_eq!(
            checksum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]),
            !0xddf2
        );
    }

    #[test]
    fn pings_and_solicitations_are_answered_for_own_addresses_only() {
        let gateway: Ipv6Addr = "fe80::1".parse().unwrap();
        let other: Ipv6Addr = "fe80::3".parse().unwrap();
        let bytes = ping6(gateway);
        let frame = Frame::parse(&bytes).unwrap();
        let pong = answer(&bytes, &frame, &[], &[gateway]).unwrap();
        let parsed = Frame::parse(&pong).unwrap();
        assert_eq!(parsed.to, frame.from);
        let source = "fe80::2".parse().unwrap();
        assert_eq!(
            parsed.payload,
            Payload::Ipv6 {
                source: gateway,
                destination: source,
                protocol: 58
            }
        );
        assert_eq!(pong[14 + 40], 129);
        // Over a right checksum the sum is zero. 11 bytes of message behind 54 of headers.
        let pseudo = [0, 0, 0, 11, 0, 0, 0, 58];
        let sum = checksum(&[&gateway.octets(), &source.octets(), &pseudo, &pong[54..65]]);
        assert_eq!(sum, 0);
        let bytes = ping6(other);
        assert!(answer(&bytes, &Frame::parse(&bytes).unwrap(), &[], &[gateway]).is_none());
    }

    #[test]
    fn no_rubbish_makes_it_panic() {
        let gateway4 = Ipv4Addr::new(172, 31, 1, 1);
        let gateway6: Ipv6Addr = "fe80::1".parse().unwrap();
        let mut icmp = vec![0; 12];
        icmp.extend([
            8, 0, 0x45, 0, 0, 30, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 2, 172, 31, 1, 1,
        ]);
        icmp.extend([8, 0, 0, 0, 0, 1, 0, 1, 1, 2]);
        let good = [
            test_frames::arp_request(None, gateway4),
            test_frames::arp_request(Some(7), gateway4),
            ping6(gateway6),
            icmp,
        ];
        for bytes in &good {
            let frame = Frame::parse(bytes).unwrap();
            assert!(
                answer(bytes, &frame, &[gateway4], &[gateway6]).is_some(),
                "{frame:?}"
            );
            for end in 0..=bytes.len() {
                for at in 0..end {
                    for flip in [0, 0xff, 0x0f] {
                        let mut bad = bytes[..end].to_vec();
                        bad[at] ^= flip;
                        if let Some(frame) = Frame::parse(&bad) {
                            let _ = answer(&bad, &frame, &[gateway4], &[gateway6]);
                        }
                    }
                }
            }
        }
    }
}
