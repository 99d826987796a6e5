//! Hosts whose links have a rate, a queue, a delay and losses: a network namespace each, whose only device is a TUN device.
//! One thread reads what each of them sends and writes it to its receiver when the links between have let it pass. (Not
//! every kernel has netem.)

mod link;
mod paths;

use crate::hosts::{Host, begin_network};
use link::device_length;
use paths::Paths;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tun_rs::{DeviceBuilder, SyncDevice, VIRTIO_NET_HDR_LEN};

/// What each host calls its device.
const DEVICE: &str = "tun0";
/// How much of a transfer's start is not counted where only the bulk is, in bytes: all connections stand by then.
pub const FIRST_BYTES: u64 = 1 << 20;
/// Longest packet that a device gives, with the header in front of it, in bytes.
const MAX_PACKET_LENGTH: usize = 66_000;
/// Longest packet before it is cut, in bytes: longer ones would be bursts.
const MAX_WHOLE_LENGTH: usize = 16_384;
/// Packets that are taken of one device before the others have their turn.
const BATCH: usize = 16;
/// How long the thread sleeps at most; then it looks whether it is to end.
const IDLE: Duration = Duration::from_millis(100);

/// What the links are like, the same at every host.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Of a host's uplink, in bytes per second, headers of IP and TCP among them.
    pub up: u64,
    /// Of its downlink, in the same way.
    pub down: u64,
    /// From host to host, one way.
    pub delay: Duration,
    /// The part of all packets that is lost.
    pub loss: f64,
    /// Whether packets pass before they are cut to the device's MTU. That is much cheaper; one loss takes all segments then.
    pub passes_whole: bool,
    /// What governs connections that do not choose for themselves.
    pub congestion: Congestion,
}

/// A congestion control of TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Congestion {
    /// Which hardly minds losses.
    Bbr,
    /// The usual one, which takes them for congestion.
    Cubic,
}

/// What has passed a host's device.
#[derive(Debug, Clone, Copy, Default)]
pub struct Meter {
    /// In bytes, with headers.
    pub sent_bytes: u64,
    /// In bytes, with headers.
    pub received_bytes: u64,
    /// When it had received [`FIRST_BYTES`].
    pub first_received_at: Option<Instant>,
}

/// Hosts with such links, and one more for a tracker whose links have no rate; dropped, they are gone.
#[derive(Debug)]
pub struct Network {
    // The thread ends before the hosts do.
    emulator: Emulator,
    hosts: Vec<Host>,
}

impl Network {
    /// So many hosts, and the tracker's.
    ///
    /// # Errors
    /// When this machine lets nobody make them; the text says why.
    pub fn new(n_hosts: u8, shape: &Shape) -> Result<Self, String> {
        let name = begin_network();
        let hosts = (0..=n_hosts).map(|nth| Host::new(&name, nth)).collect::<Result<Vec<_>, _>>()?;
        let devices = hosts.iter().map(|host| open_device(host, shape)).collect::<Result<Vec<_>, _>>()?;
        let emulator = Emulator::start(devices, Paths::new(n_hosts.into(), shape));
        Ok(Self { emulator, hosts })
    }

    /// The host with this number.
    pub fn host(&self, nth: usize) -> &Host {
        &self.hosts[nth]
    }

    /// The one for the tracker.
    pub fn tracker_host(&self) -> &Host {
        &self.hosts[self.hosts.len() - 1]
    }

    /// Counts from here on.
    pub fn restart_meters(&self) {
        self.emulator.meters().fill(Meter::default());
    }

    /// What has passed each host's device since [`Self::restart_meters`].
    pub fn meters(&self) -> Vec<Meter> {
        self.emulator.meters().clone()
    }
}

/// The other end of a host's device. Its packets begin with the header that says how they are to be cut and checked.
struct Device {
    tun: SyncDevice,
    /// How much of that header the system leaves out, because it has cut and summed already.
    n_left_out: usize,
}

impl Device {
    fn receive(&self, buffer: &mut [u8]) -> io::Result<Vec<u8>> {
        buffer[..self.n_left_out].fill(0);
        let n = self.tun.recv(&mut buffer[self.n_left_out..])?;
        Ok(buffer[..self.n_left_out + n].to_vec())
    }

    fn send(&self, packet: &[u8]) -> io::Result<usize> {
        self.tun.send(&packet[self.n_left_out..])
    }
}

/// A host's device and the way through it to all others.
fn open_device(host: &Host, shape: &Shape) -> Result<Device, String> {
    let build = || DeviceBuilder::new().name(DEVICE).offload(shape.passes_whole).enable(false).build_sync();
    let tun = host.run(build).map_err(|error| format!("no TUN device: {error}"))?;
    tun.set_nonblocking(true).map_err(|error| format!("a TUN device blocks: {error}"))?;
    host.ip(&format!("link set {DEVICE} mtu 1500 txqueuelen 1000 gso_max_size {MAX_WHOLE_LENGTH}"))?;
    host.plug_in(DEVICE)?;
    let congestion = match shape.congestion {
        Congestion::Bbr => "bbr",
        Congestion::Cubic => "cubic",
    };
    // For each route, because a namespace may not change it for all.
    host.ip(&format!("route replace 10.0.0.0/24 dev {DEVICE} src {} congctl {congestion}", host.address()))?;
    Ok(Device { tun, n_left_out: if shape.passes_whole { 0 } else { VIRTIO_NET_HDR_LEN } })
}

/// The thread that is all links; dropped, it ends.
#[derive(Debug)]
struct Emulator {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    meters: Mutex<Vec<Meter>>,
    ended: AtomicBool,
}

impl Emulator {
    fn start(devices: Vec<Device>, mut paths: Paths) -> Self {
        let meters = Mutex::new(vec![Meter::default(); devices.len()]);
        let shared = Arc::new(Shared { meters, ended: AtomicBool::new(false) });
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let stopped = shared.run(&devices, &mut paths);
                assert!(stopped.is_ok(), "the links are down: {stopped:?}");
            }
        });
        Self { shared, thread: Some(thread) }
    }

    fn meters(&self) -> MutexGuard<'_, Vec<Meter>> {
        self.shared.meters()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // If it panicked, it has said so.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn meters(&self) -> MutexGuard<'_, Vec<Meter>> {
        self.meters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, devices: &[Device], paths: &mut Paths) -> io::Result<()> {
        let start = Instant::now();
        let mut buffer = vec![0; MAX_PACKET_LENGTH];
        while !self.ended.load(Ordering::Relaxed) {
            self.deliver(devices, paths, start);
            let left = paths.next_at().map_or(IDLE, |at| at.saturating_sub(start.elapsed()).min(IDLE));
            for from in readable(devices, left)? {
                self.collect(from, &devices[from], paths, start, &mut buffer)?;
            }
        }
        Ok(())
    }

    /// Hands over what has arrived.
    fn deliver(&self, devices: &[Device], paths: &mut Paths, start: Instant) {
        while let Some((to, packet)) = paths.arrived(start.elapsed()) {
            // A host takes nothing before its device is up.
            if devices[to].send(&packet).is_ok() {
                let meter = &mut self.meters()[to];
                meter.received_bytes += device_length(&packet) as u64;
                if meter.received_bytes >= FIRST_BYTES {
                    meter.first_received_at.get_or_insert_with(Instant::now);
                }
            }
        }
    }

    /// Takes what a host has sent.
    fn collect(
        &self,
        from: usize,
        device: &Device,
        paths: &mut Paths,
        start: Instant,
        buffer: &mut [u8],
    ) -> io::Result<()> {
        for _ in 0..BATCH {
            let packet = match device.receive(buffer) {
                Ok(packet) => packet,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            self.meters()[from].sent_bytes += device_length(&packet) as u64;
            paths.send(start.elapsed(), from, packet);
        }
        Ok(())
    }
}

/// Waits so long for packets; which devices have some.
fn readable(devices: &[Device], limit: Duration) -> io::Result<Vec<usize>> {
    let mut polled: Vec<PollFd<'_>> = devices.iter().map(|device| PollFd::new(&device.tun, PollFlags::IN)).collect();
    let limit = Timespec { tv_sec: 0, tv_nsec: limit.subsec_nanos().into() };
    match poll(&mut polled, Some(&limit)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let found = polled.iter().enumerate().filter(|(_, polled)| !polled.revents().is_empty());
    Ok(found.map(|(nth, _)| nth).collect())
}
