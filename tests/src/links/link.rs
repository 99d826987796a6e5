//! One direction of a link: how long a packet takes to leave it, and when there is no room for one.

use std::time::Duration;
use tun_rs::VIRTIO_NET_HDR_LEN;

/// How much a link holds back before it drops what comes, as the time that it takes to send it.
pub(crate) const QUEUE: Duration = Duration::from_millis(100);

/// One direction of a link.
#[derive(Debug)]
pub(crate) struct Link {
    /// `None`: as fast as anything.
    rate_bytes_per_s: Option<u64>,
    /// When it has sent everything that it accepted, counted from the network's start.
    free_at: Duration,
}

impl Link {
    pub(crate) fn new(rate_bytes_per_s: Option<u64>) -> Self {
        Self { rate_bytes_per_s, free_at: Duration::ZERO }
    }

    /// When a packet that comes now has left; `None` when it finds the queue full and is dropped.
    pub(crate) fn pass(&mut self, now: Duration, length_bytes: usize) -> Option<Duration> {
        let Some(rate) = self.rate_bytes_per_s else { return Some(now) };
        let begin = self.free_at.max(now);
        if begin - now > QUEUE {
            return None;
        }
        self.free_at = begin + Duration::from_nanos(length_bytes as u64 * 1_000_000_000 / rate);
        Some(self.free_at)
    }
}

/// The length of a packet at its device, in bytes: without the header that says how it is to be cut and checked.
pub(crate) fn device_length(packet: &[u8]) -> usize {
    packet.len().saturating_sub(VIRTIO_NET_HDR_LEN)
}

/// The length of a packet on the wire, in bytes. One that the kernel has not cut into segments yet pays its headers for
/// each of them.
pub(crate) fn wire_length(packet: &[u8]) -> usize {
    // struct virtio_net_hdr: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, in the host's byte order.
    let field = |at: usize| usize::from(u16::from_ne_bytes([packet[at], packet[at + 1]]));
    let (header_length, segment_length) = (field(2), field(4));
    let length = device_length(packet);
    if packet[1] == 0 || segment_length == 0 {
        return length;
    }
    let n_segments = length.saturating_sub(header_length).div_ceil(segment_length);
    length + n_segments.saturating_sub(1) * header_length
}

/// The number of the host that a packet is for, by its address; `None` for what is no whole packet of IPv4.
pub(crate) fn receiver(packet: &[u8]) -> Option<usize> {
    let ip = packet.get(VIRTIO_NET_HDR_LEN..)?;
    let (version, address) = (ip.first()? >> 4, ip.get(16..20)?);
    match (version, address) {
        (4, [10, 0, 0, last]) => usize::from(*last).checked_sub(1),
        _ => None,
    }
}

/// A packet as a device gives it: so many bytes of IPv4 for a host, to be cut into segments of that many.
#[cfg(test)]
pub(crate) fn packet(to: u8, length_bytes: usize, segment: Option<u16>) -> Vec<u8> {
    let mut packet = vec![0; VIRTIO_NET_HDR_LEN + length_bytes];
    if let Some(segment_length) = segment {
        packet[1] = 1;
        packet[2..4].copy_from_slice(&52_u16.to_ne_bytes());
        packet[4..6].copy_from_slice(&segment_length.to_ne_bytes());
    }
    let ip = &mut packet[VIRTIO_NET_HDR_LEN..];
    ip[0] = 0x45;
    ip[16..20].copy_from_slice(&[10, 0, 0, to + 1]);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB_PER_S: Option<u64> = Some(1_000_000);

    #[test]
    fn packets_leave_one_after_the_other_at_the_rate() {
        let mut link = Link::new(MB_PER_S);
        let now = Duration::from_secs(7);
        assert_eq!(link.pass(now, 1000), Some(now + Duration::from_millis(1)));
        assert_eq!(link.pass(now, 2000), Some(now + Duration::from_millis(3)));
        let later = now + Duration::from_secs(1);
        assert_eq!(link.pass(later, 1000), Some(later + Duration::from_millis(1)), "an idle link saves nothing up");
    }

    #[test]
    fn a_link_without_a_rate_takes_no_time() {
        let mut link = Link::new(None);
        assert_eq!(link.pass(QUEUE, usize::MAX), Some(QUEUE));
    }

    #[test]
    fn a_full_queue_drops_and_has_room_again_once_it_has_sent() {
        let mut link = Link::new(MB_PER_S);
        let n_accepted = (0..1000).filter(|_| link.pass(Duration::ZERO, 1000).is_some()).count();
        // 100 ms wait, and one is on its way.
        assert_eq!(n_accepted, 101);
        assert_eq!(link.pass(Duration::from_micros(999), 1000), None);
        assert!(link.pass(Duration::from_millis(1), 1000).is_some());
    }

    #[test]
    fn a_packet_to_be_cut_pays_its_headers_for_each_segment() {
        assert_eq!(wire_length(&packet(0, 1500, None)), 1500);
        assert_eq!(wire_length(&packet(0, 52 + 1448, Some(1448))), 1500, "one segment");
        assert_eq!(wire_length(&packet(0, 52 + 10 * 1448, Some(1448))), 10 * 1500);
        assert_eq!(wire_length(&packet(0, 52 + 10 * 1448 + 1, Some(1448))), 10 * 1500 + 53);
        assert_eq!(device_length(&packet(0, 52 + 10 * 1448, Some(1448))), 52 + 10 * 1448);
    }

    #[test]
    fn the_receiver_is_told_by_the_address() {
        assert_eq!(receiver(&packet(3, 40, None)), Some(3));
        let mut of_another_network = packet(3, 40, None);
        of_another_network[VIRTIO_NET_HDR_LEN + 16] = 11;
        assert_eq!(receiver(&of_another_network), None);
        let mut of_ipv6 = packet(3, 40, None);
        of_ipv6[VIRTIO_NET_HDR_LEN] = 0x60;
        assert_eq!(receiver(&of_ipv6), None);
        assert_eq!(receiver(&[0; VIRTIO_NET_HDR_LEN + 19]), None);
        assert_eq!(receiver(&[]), None);
    }
}
