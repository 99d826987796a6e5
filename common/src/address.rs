//! Addresses as text, which of them count as one, and which a member may be told to connect to.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// A host, by address or by name, and a port: `IP:port`, `[v6]:port` or `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// An IP address without brackets, or a host name in lower case.
    pub host: String,
    /// Never 0.
    pub port: u16,
}

/// A text is not `IP:port`, `[v6]:port` or `host:port`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an address and a port")]
pub struct EndpointError;

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        parse_joined(text).map(|(host, port)| Self { host, port }).ok_or(EndpointError)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

pub(crate) fn parse_port(word: &str) -> Option<u16> {
    word.parse().ok().filter(|port| *port != 0)
}

/// `IP:port`, `[v6]:port` or `host:port`; a bare IPv6 address is not taken apart.
pub(crate) fn parse_joined(word: &str) -> Option<(String, u16)> {
    let (host, port) = word.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').filter(|v6| v6.parse::<Ipv6Addr>().is_ok())?,
        None if host.contains(':') => return None,
        None => host,
    };
    Some((parse_host(host)?, parse_port(port)?))
}

/// An IP address or a host name (RFC 1123: letters, digits, hyphens and dots).
pub(crate) fn parse_host(word: &str) -> Option<String> {
    // With a port behind, it would read like a pin.
    if word.eq_ignore_ascii_case("sha256") {
        return None;
    }
    if let Ok(address) = word.parse::<IpAddr>() {
        return Some(address.to_string());
    }
    let numeric = word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let named = word.len() <= 253
        && !word.starts_with('-')
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
    (named && !numeric && !word.is_empty()).then(|| word.to_ascii_lowercase())
}

/// The block that one customer usually has: an IPv4 address, or an IPv6 /64.
pub fn block_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
        v4 => v4,
    }
}

/// Whether a member's client may dial this address. Nobody aims it at unspecified, multicast, broadcast or
/// link-local addresses, nor at its own machine, unless the tracker itself is there (`loopback`).
pub fn may_dial(address: SocketAddr, loopback: bool) -> bool {
    let ip = address.ip().to_canonical();
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let nowhere = ip.is_unspecified() || ip.is_multicast() || link_local || address.port() == 0;
    !nowhere && (loopback || !ip.is_loopback())
}

/// From where an address can be reached, the narrowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// This machine.
    Loopback,
    /// A site or a provider's network: RFC 1918, 6598, 4193, 2544, link-local, and what is reserved.
    Private,
    /// Everywhere.
    Global,
}

/// The scope of an address. One that carries an IPv4 address (mapped, NAT64 of RFC 6052, 6to4) has the scope of that.
pub fn scope_of(address: IpAddr) -> Scope {
    match address.to_canonical() {
        IpAddr::V4(v4) => scope_of_v4(v4),
        IpAddr::V6(v6) if v6.is_loopback() => Scope::Loopback,
        IpAddr::V6(v6) => match v6.segments() {
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
                scope_of_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
            }
            // Global unicast is 2000::/3; of the rest only NAT64 above leads out of a site.
            [0x2000..=0x3fff, ..] => Scope::Global,
            _ => Scope::Private,
        },
    }
}

fn scope_of_v4(v4: Ipv4Addr) -> Scope {
    let [a, b, c, _] = v4.octets();
    let shared = a == 100 && b & 0xc0 == 64;
    let protocol = a == 192 && b == 0 && c == 0;
    let benchmark = a == 198 && b & 0xfe == 18;
    let narrow = v4.is_private() || v4.is_link_local() || shared || protocol || benchmark || a == 0 || a >= 224;
    match () {
        () if v4.is_loopback() => Scope::Loopback,
        () if narrow => Scope::Private,
        () => Scope::Global,
    }
}

/// Whether a client may dial a peer that a foreign tracker at `tracker` named (design §3): it must be a machine's
/// address, and of no narrower scope than the tracker's own, so that nobody is aimed at hosts of his own network.
pub fn may_dial_named_by(peer: SocketAddr, tracker: IpAddr) -> bool {
    let tracker = scope_of(tracker);
    may_dial(peer, tracker == Scope::Loopback) && scope_of(peer.ip()) >= tracker
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_shown_as_they_are_read() {
        for text in ["127.0.0.1:1", "[::1]:65535", "tracker.example:80"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        for bad in ["", "127.0.0.1", "127.0.0.1:0", "::1:5", "[::1]", "[x]:1", ":1", "a b:1", "1.2.3.400:5", "a:65536"]
        {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_foreign_tracker_names_no_peer_of_a_narrower_scope() {
        const GLOBAL: [&str; 4] = ["8.8.8.8", "2600::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"];
        const PRIVATE: [&str; 10] = [
            "10.1.2.3",
            "172.16.0.1",
            "192.168.0.1",
            "100.64.0.1",
            "198.18.0.1",
            "fd00::1",
            "fec0::1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:a00:1::1",
        ];
        const LOOPBACK: [&str; 5] = ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "2002:7f00:1::1"];
        let scopes = [(Scope::Global, &GLOBAL[..]), (Scope::Private, &PRIVATE), (Scope::Loopback, &LOOPBACK)];
        for (tracker_scope, trackers) in scopes {
            for (peer_scope, peers) in scopes {
                for (tracker, peer) in trackers.iter().flat_map(|tracker| peers.iter().map(move |peer| (tracker, peer)))
                {
                    let (tracker, peer) = (tracker.parse().unwrap(), SocketAddr::new(peer.parse().unwrap(), 5));
                    assert_eq!((scope_of(tracker), scope_of(peer.ip())), (tracker_scope, peer_scope));
                    assert_eq!(may_dial_named_by(peer, tracker), peer_scope >= tracker_scope, "{tracker} {peer}");
                }
            }
        }
        for nowhere in ["0.0.0.0:1", "224.0.0.1:1", "169.254.0.1:1", "10.0.0.1:0", "[fe80::1]:1"] {
            assert!(!may_dial_named_by(nowhere.parse().unwrap(), [127, 0, 0, 1].into()), "{nowhere}");
        }
    }

    #[test]
    fn an_ipv6_customer_is_a_64_and_mapped_addresses_are_ipv4() {
        let block = |text: &str| block_of(text.parse().unwrap()).to_string();
        assert_eq!(block("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(block("2001:db8:1:2::"), block("2001:db8:1:2:ffff::1"));
        assert_ne!(block("2001:db8:1:2::"), block("2001:db8:1:3::"));
        assert_eq!(block("::ffff:10.0.0.1"), "10.0.0.1");
    }

    #[test]
    fn clients_are_not_aimed_at_what_is_no_members_machine() {
        let ok = |text: &str, loopback| may_dial(text.parse().unwrap(), loopback);
        for bad in [
            "0.0.0.0:1",
            "[::]:1",
            "224.0.0.1:1",
            "[ff02::1]:1",
            "169.254.1.1:1",
            "[fe80::1]:1",
            "255.255.255.255:1",
            "10.0.0.1:0",
            "[::ffff:0.0.0.0]:1",
        ] {
            assert!(!ok(bad, true), "{bad}");
        }
        for own in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(ok(own, true) && !ok(own, false), "{own}");
        }
        assert!(ok("10.0.0.1:1", false) && ok("[2001:db8::1]:1", false));
    }
}
