//! A running program with its three streams: every line it prints is kept, and waits look at the lines.

use crate::waiting::{DEADLINE, eventually_within, skipped};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The lines that a program printed on one stream.
#[derive(Debug, Default)]
pub struct Lines {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a stream to its end, on a thread of its own.
    fn collect(self: &Arc<Self>, stream: impl Read + Send + 'static) {
        let lines = Arc::clone(self);
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
                lines.lock().lines.push(text);
                lines.changed.notify_all();
                line.clear();
            }
            lines.lock().ended = true;
            lines.changed.notify_all();
        });
    }

    /// Everything so far, a line each.
    pub fn text(&self) -> String {
        self.lock().lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }

    /// How many lines there are.
    pub fn count(&self) -> usize {
        self.lock().lines.len()
    }

    /// The lines from number `from` on.
    pub fn since(&self, from: usize) -> Vec<String> {
        self.lock().lines.get(from..).unwrap_or_default().to_vec()
    }

    /// The line with this number, waiting for it; `None` when the stream ends or the time is over before.
    pub fn wait_nth(&self, nth: usize, limit: Duration) -> Option<String> {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        loop {
            if let Some(line) = state.lines.get(nth) {
                return Some(line.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                return None;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The first line from number `from` on for which `look` holds, waiting for it.
    ///
    /// # Panics
    /// When the stream ends or [`DEADLINE`] is over before.
    pub fn wait_line(&self, from: usize, what: &str, mut look: impl FnMut(&str) -> bool) -> String {
        let deadline = Instant::now() + DEADLINE;
        for nth in from.. {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(line) = self.wait_nth(nth, left) else { break };
            if look(&line) {
                return line;
            }
        }
        panic!("no such line: {what}\n{}", self.text());
    }

    /// Waits until the program closed the stream.
    fn wait_end(&self) {
        let mut state = self.lock();
        while !state.ended {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

/// A running program; dropped, it is killed.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Arc<Lines>,
    stderr: Arc<Lines>,
}

impl Running {
    /// Starts a program with all three streams connected.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let stdin = child.stdin.take();
        let (stdout, stderr) = (Arc::<Lines>::default(), Arc::<Lines>::default());
        stdout.collect(child.stdout.take().expect("stdout is piped"));
        stderr.collect(child.stderr.take().expect("stderr is piped"));
        Self { child, stdin, stdout, stderr }
    }

    /// What it printed so far.
    pub fn stdout(&self) -> &Arc<Lines> {
        &self.stdout
    }

    /// What it complained of so far.
    pub fn stderr(&self) -> &Arc<Lines> {
        &self.stderr
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Types a line. A program that is gone does not read it; that shows elsewhere.
    pub fn type_line(&mut self, line: &str) {
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(format!("{line}\n").as_bytes()).and_then(|()| stdin.flush());
        }
    }

    /// Ends its input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a child can be signalled");
    }

    /// SIGSTOP, and waits until every thread of it stands still.
    ///
    /// # Panics
    /// When it does not.
    pub fn suspend(&self) {
        self.signal(Signal::STOP);
        let is_stopped = || {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).ok()?;
            let stands = |stat: String| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'));
            let mut stats = tasks.flatten().map(|task| std::fs::read_to_string(task.path().join("stat")));
            stats.all(|stat| stat.is_ok_and(stands)).then_some(())
        };
        eventually_within(DEADLINE, "the program stands still", is_stopped);
    }

    /// SIGCONT.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether it has not ended yet.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it runs longer than `limit`.
    pub fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        let child = &mut self.child;
        let status =
            eventually_within(limit, "the program ends", || child.try_wait().expect("a child can be waited for"));
        self.stdout.wait_end();
        self.stderr.wait_end();
        status
    }

    /// Ends its input and waits for its end.
    ///
    /// # Panics
    /// When it runs longer than [`DEADLINE`].
    pub fn finish(mut self) -> Finished {
        self.close_stdin();
        let code = self.wait_exit(DEADLINE).code();
        Finished { code, stdout: self.stdout.text(), stderr: self.stderr.text() }
    }

    /// The most memory that it ever had resident, in bytes (VmHWM).
    pub fn peak_memory(&self) -> u64 {
        self.status_kib("VmHWM:") * 1024
    }

    /// The memory that it has resident now, in bytes (VmRSS).
    pub fn memory(&self) -> u64 {
        self.status_kib("VmRSS:") * 1024
    }

    /// How many bytes it read from files and pipes so far; sockets do not count. `None` where the system does not say:
    /// our programs close their memory, and with it this number, to all but root.
    pub fn bytes_read(&self) -> Option<u64> {
        let text = self.proc_text("io");
        (!text.is_empty()).then(|| proc_number(&text, "rchar:"))
    }

    /// Whether it has read less than `limit` bytes since [`Self::bytes_read`] said `before`; where the system does not
    /// say, that is skipped.
    pub fn has_read_less(&self, limit: u64, before: Option<u64>) -> bool {
        match (before, self.bytes_read()) {
            (Some(before), Some(now)) => now - before < limit,
            _ => {
                skipped("the system does not say how much a process read; root learns it");
                true
            }
        }
    }

    /// The CPU time that it has used so far, in user and kernel mode, all threads together.
    pub fn cpu_time(&self) -> Duration {
        cpu_time_of(&self.proc_text("stat"))
    }

    /// The CPU time that this very process has used so far.
    pub fn own_cpu_time() -> Duration {
        cpu_time_of(&std::fs::read_to_string("/proc/self/stat").unwrap_or_default())
    }

    fn status_kib(&self, key: &str) -> u64 {
        proc_number(&self.proc_text("status"), key)
    }

    fn proc_text(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.pid())).unwrap_or_default()
    }
}

/// Reads `utime` and `stime` of a `stat` file: the 14th and 15th field, counted behind the name in brackets.
fn cpu_time_of(stat: &str) -> Duration {
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// The number behind `key` in a file of /proc.
fn proc_number(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    line.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or_default()
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
