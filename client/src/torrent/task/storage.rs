//! The torrent's dealings with its file: verifying pieces, finishing, and waiting for a disk that refuses.

use mini_torrent_common::geometry::PieceIndex;
use mini_torrent_engine::Event;
use std::time::Instant;

use super::{Finished, Task};
use crate::disk::FileStamp;
use crate::torrent::preparation::DISK_FULL;
use crate::torrent::{DISK_RETRY, Purpose};

impl Task {
    /// Looks at the disk before the first request, and finishes a file that needs none.
    pub(super) fn begin(&mut self) {
        if let Some((_, destination)) = &self.part {
            let missing = self.plan.geometry.length().saturating_sub(self.engine.stats(Instant::now()).have_bytes);
            if destination.free_bytes().is_ok_and(|free| free < missing) {
                self.pause(DISK_FULL.to_owned());
            }
            if self.engine.is_complete() {
                self.finish();
            }
        }
    }

    pub(super) fn verify(&mut self, piece: PieceIndex, with_digests: bool) {
        let blocks = self.blocks.take(piece);
        let Some((part, _)) = &self.part else { return };
        let part = part.clone();
        self.work.spawn_blocking(move || Finished::Checked(piece, part.verify_and_write(piece, &blocks, with_digests)));
    }

    /// Makes the file durable and gives it its final name.
    pub(super) fn finish(&mut self) {
        let (Some((part, destination)), Purpose::Fetch(fetch)) = (&self.part, &self.plan.purpose) else { return };
        let (part, destination, replace) = (part.clone(), destination.clone(), fetch.replace);
        self.work.spawn_blocking(move || {
            let finished = part.sync().and_then(|()| destination.finish(&part.file(), replace));
            Finished::Renamed(finished.and_then(|()| FileStamp::at(destination.path())))
        });
    }

    /// Stops fetching until the disk may have changed its mind; goes on serving.
    pub(super) fn pause(&mut self, reason: String) {
        if self.obstacle.is_none() {
            tracing::warn!(%reason, "a download pauses");
            self.engine.handle(Instant::now(), Event::Paused);
        }
        self.obstacle = Some((reason, Instant::now() + DISK_RETRY));
    }

    /// Goes on when there is room for all that is missing.
    pub(super) fn try_again(&mut self) {
        let Some((_, destination)) = &self.part else { return };
        let missing = self.plan.geometry.length().saturating_sub(self.engine.stats(Instant::now()).have_bytes);
        if destination.free_bytes().is_ok_and(|free| free < missing) {
            self.pause(DISK_FULL.to_owned());
            return;
        }
        self.obstacle = None;
        match self.engine.is_complete() {
            true => self.finish(),
            false => self.engine.handle(Instant::now(), Event::Resumed),
        }
    }
}
