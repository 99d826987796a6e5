//! The writing thread: it gathers what waits into one transaction, commits once, and only then answers.
//!
//! Each write has its own savepoint, so one that is refused leaves no trace and does not disturb the others.

use crate::limits;
use crate::store::sql::Tx;
use crate::store::{Result, StoreError};
use rusqlite::{Connection, TransactionBehavior};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

pub(super) struct Writer {
    queue: Mutex<Option<mpsc::Sender<Box<dyn Job>>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A write that waits for its turn, then for the commit.
trait Job: Send {
    fn run(&mut self, connection: &Connection);
    fn answer(self: Box<Self>, committed: bool);
}

struct Write<T, F> {
    work: Option<F>,
    outcome: Result<T>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T: Send, F: FnOnce(Tx<'_>) -> Result<T> + Send> Job for Write<T, F> {
    fn run(&mut self, connection: &Connection) {
        let Some(work) = self.work.take() else { return };
        self.outcome = in_savepoint(connection, work);
    }

    fn answer(self: Box<Self>, committed: bool) {
        let outcome = match self.outcome {
            Ok(_) if !committed => Err(StoreError::Unavailable),
            outcome => outcome,
        };
        // Who asked may have gone; the write stands all the same.
        let _ = self.reply.send(outcome);
    }
}

fn in_savepoint<T>(connection: &Connection, work: impl FnOnce(Tx<'_>) -> Result<T>) -> Result<T> {
    connection.execute_batch("SAVEPOINT write")?;
    let outcome = catch_unwind(AssertUnwindSafe(|| work(Tx(connection)))).unwrap_or(Err(StoreError::Unavailable));
    match outcome {
        Ok(value) => {
            connection.execute_batch("RELEASE write")?;
            Ok(value)
        }
        Err(error) => {
            connection.execute_batch("ROLLBACK TO write; RELEASE write")?;
            Err(error)
        }
    }
}

impl Writer {
    pub(super) fn start(mut connection: Connection) -> std::io::Result<Self> {
        let (sender, mut queue) = mpsc::channel::<Box<dyn Job>>(limits::MAX_QUEUED_WRITES);
        let thread = std::thread::Builder::new().name("store-writer".into()).spawn(move || {
            let mut jobs = Vec::new();
            while let Some(first) = queue.blocking_recv() {
                jobs.push(first);
                while jobs.len() < limits::MAX_WRITES_PER_COMMIT
                    && let Ok(next) = queue.try_recv()
                {
                    jobs.push(next);
                }
                let committed = commit(&mut connection, &mut jobs);
                jobs.drain(..).for_each(|job| job.answer(committed));
            }
        })?;
        Ok(Self { queue: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)) })
    }

    pub(super) async fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce(Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (reply, answer) = oneshot::channel();
        let job = Write { work: Some(work), outcome: Err(StoreError::Unavailable), reply };
        queue.ok_or(StoreError::Unavailable)?.send(Box::new(job)).await.map_err(|_| StoreError::Unavailable)?;
        answer.await.map_err(|_| StoreError::Unavailable)?
    }

    /// Lets the queue run dry and ends the thread.
    pub(super) async fn close(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic of the thread was logged where it happened; nothing is left to save.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

fn commit(connection: &mut Connection, jobs: &mut [Box<dyn Job>]) -> bool {
    let transaction = match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
        Ok(transaction) => transaction,
        Err(error) => {
            tracing::error!(%error, "the store takes no write");
            return false;
        }
    };
    jobs.iter_mut().for_each(|job| job.run(&transaction));
    match transaction.commit() {
        Ok(()) => true,
        Err(error) => {
            tracing::error!(%error, "a commit failed");
            false
        }
    }
}
