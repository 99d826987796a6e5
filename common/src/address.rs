//! Which addresses count as one, and which a member may be told to connect to.

use std::net::{IpAddr, SocketAddr};

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

#[cfg(test)]
mod tests {
    use super::*;

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
