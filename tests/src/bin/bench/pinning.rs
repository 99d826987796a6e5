//! One core for the tracker, another for the load or a second tracker.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores that this program may use, as two sets.
pub(crate) struct Cores {
    all: CpuSet,
    tracker: CpuSet,
    load: CpuSet,
}

/// The load's core, kept until this is dropped.
pub(crate) struct Pinned<'a>(&'a Cores);

impl Cores {
    /// The first core for the tracker and the second one for the load, or the only one for both.
    pub(crate) fn of_this_machine() -> Self {
        let all = sched_getaffinity(None).unwrap_or_default();
        let mut each = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core));
        let first = each.next().unwrap_or(0);
        let second = each.next().unwrap_or(first);
        let only = |core| {
            let mut set = CpuSet::new();
            set.set(core);
            set
        };
        Self { all, tracker: only(first), load: only(second) }
    }

    /// Starts something on the tracker's core: a program inherits the core of the thread that starts it.
    pub(crate) fn of_tracker<T>(&self, start: impl FnOnce() -> T) -> T {
        self.start_on(&self.tracker, start)
    }

    /// Starts something on the other core.
    pub(crate) fn of_second_tracker<T>(&self, start: impl FnOnce() -> T) -> T {
        self.start_on(&self.load, start)
    }

    fn start_on<T>(&self, cores: &CpuSet, start: impl FnOnce() -> T) -> T {
        pin(cores);
        let started = start();
        pin(&self.all);
        started
    }

    /// Keeps this thread on the load's core.
    pub(crate) fn for_load(&self) -> Pinned<'_> {
        pin(&self.load);
        Pinned(self)
    }
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        pin(&self.0.all);
    }
}

/// Where the system forbids it, the figures are those of shared cores.
fn pin(cores: &CpuSet) {
    if let Err(error) = sched_setaffinity(None, cores) {
        eprintln!("bench: a core cannot be chosen: {error}");
    }
}
