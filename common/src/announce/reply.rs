//! What a tracker answers, written into a buffer of the caller's that can be used again and again.

use super::{Contact, Counts};
use crate::hash::InfoHash;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};

/// The answer to an announce.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reply<'a> {
    /// Seconds until the next announce.
    pub interval_s: u32,
    /// Seconds before which the client may not announce again.
    pub min_interval_s: Option<u32>,
    /// The swarm's numbers.
    pub counts: Counts,
    /// A text for the client's user.
    pub warning: Option<&'a str>,
    /// The peers. Their number is the caller's to bound.
    pub peers: &'a [Contact],
}

impl Reply<'_> {
    /// Appends the answer with each peer in 6 bytes (BEP 23), or in 18 for IPv6 (BEP 7).
    pub fn write_compact(&self, out: &mut Vec<u8>) {
        self.write_head(out);
        let (mut n_v4, mut n_v6) = (0, 0);
        for peer in self.peers {
            match peer.address.ip().to_canonical() {
                IpAddr::V4(_) => n_v4 += 1,
                IpAddr::V6(_) => n_v6 += 1,
            }
        }
        put(out, format_args!("5:peers{}:", n_v4 * 6));
        self.peers.iter().filter_map(|peer| compact_v4(peer.address)).for_each(|bytes| out.extend_from_slice(&bytes));
        if n_v6 > 0 {
            put(out, format_args!("6:peers6{}:", n_v6 * 18));
            self.peers
                .iter()
                .filter_map(|peer| compact_v6(peer.address))
                .for_each(|bytes| out.extend_from_slice(&bytes));
        }
        self.write_tail(out);
    }

    /// Appends the answer with a dictionary for each peer (BEP 3), its id included when it is known.
    pub fn write_dictionaries(&self, out: &mut Vec<u8>) {
        self.write_head(out);
        out.extend_from_slice(b"5:peersl");
        for peer in self.peers {
            // The longest text of an address has 39 bytes.
            let mut text = [0; 40];
            let mut rest = &mut text[..];
            let written = write!(rest, "{}", peer.address.ip().to_canonical()).is_ok();
            let length = 40 - rest.len();
            let Some(ip) = text.get(..length).filter(|_| written) else { continue };
            out.push(b'd');
            put(out, format_args!("2:ip{length}:"));
            out.extend_from_slice(ip);
            if let Some(peer_id) = peer.peer_id {
                out.extend_from_slice(b"7:peer id20:");
                out.extend_from_slice(peer_id.as_bytes());
            }
            put(out, format_args!("4:porti{}ee", peer.address.port()));
        }
        out.push(b'e');
        self.write_tail(out);
    }

    fn write_head(&self, out: &mut Vec<u8>) {
        let Counts { complete, downloaded, incomplete } = self.counts;
        put(out, format_args!("d8:completei{complete}e10:downloadedi{downloaded}e10:incompletei{incomplete}e"));
        put(out, format_args!("8:intervali{}e", self.interval_s));
        if let Some(min_interval_s) = self.min_interval_s {
            put(out, format_args!("12:min intervali{min_interval_s}e"));
        }
    }

    fn write_tail(&self, out: &mut Vec<u8>) {
        if let Some(warning) = self.warning {
            put(out, format_args!("15:warning message{}:{warning}", warning.len()));
        }
        out.push(b'e');
    }
}

/// Appends a refusal: of an announce or of a scrape.
pub fn write_failure(out: &mut Vec<u8>, reason: &str) {
    put(out, format_args!("d14:failure reason{}:{reason}e", reason.len()));
}

/// Appends the answer to a scrape (BEP 48). The torrents are given in ascending order, as bencode asks.
pub fn write_scrape(out: &mut Vec<u8>, files: &[(InfoHash, Counts)]) {
    out.extend_from_slice(b"d5:filesd");
    for (info_hash, Counts { complete, downloaded, incomplete }) in files {
        out.extend_from_slice(b"20:");
        out.extend_from_slice(info_hash.as_bytes());
        put(out, format_args!("d8:completei{complete}e10:downloadedi{downloaded}e10:incompletei{incomplete}ee"));
    }
    out.extend_from_slice(b"ee");
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a vector cannot fail.
    let _ = out.write_fmt(text);
}

/// The 6 bytes of an IPv4 peer (BEP 23); IPv4-mapped addresses are IPv4.
pub(crate) fn compact_v4(address: SocketAddr) -> Option<[u8; 6]> {
    let IpAddr::V4(v4) = address.ip().to_canonical() else { return None };
    let ([a, b, c, d], [high, low]) = (v4.octets(), address.port().to_be_bytes());
    Some([a, b, c, d, high, low])
}

/// The 18 bytes of an IPv6 peer (BEP 7).
pub(crate) fn compact_v6(address: SocketAddr) -> Option<[u8; 18]> {
    let IpAddr::V6(v6) = address.ip().to_canonical() else { return None };
    let mut bytes = [0; 18];
    let (ip, port) = bytes.split_at_mut(16);
    ip.copy_from_slice(&v6.octets());
    port.copy_from_slice(&address.port().to_be_bytes());
    Some(bytes)
}

/// The peer of 6 bytes; `None` for port 0.
pub(crate) fn from_compact_v4([a, b, c, d, high, low]: [u8; 6]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes([high, low]);
    (port != 0).then(|| SocketAddr::new([a, b, c, d].into(), port))
}

/// The peer of 18 bytes, an IPv4-mapped address as IPv4; `None` for port 0.
pub(crate) fn from_compact_v6(bytes: &[u8; 18]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_first_chunk::<16>()?;
    let port = u16::from_be_bytes(port.try_into().ok()?);
    (port != 0).then(|| SocketAddr::new(IpAddr::from(*ip).to_canonical(), port))
}
