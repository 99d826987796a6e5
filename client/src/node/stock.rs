//! Ordinary clients in the swarms of groups, as the tracker announces them.

use mini_torrent_common::address::may_dial;
use mini_torrent_common::control::{ListingId, StockPeer};
use mini_torrent_common::hash::{GroupId, InfoHash};
use std::net::SocketAddr;

use super::owner::Owner;
use crate::admission::Moment;
use crate::torrent::Control;

impl Owner {
    /// Ordinary clients came to a swarm or left it. Connections of those that left end by the admissions' change.
    pub(super) fn stock_peers(&mut self, listing: ListingId, came: &[StockPeer], left: &[SocketAddr]) {
        let Some((info_hash, group)) = self.torrent_of(listing) else { return };
        self.plan.admissions.send_modify(|admissions| admissions.stock.update(info_hash, group, came, left));
        let running = self.fetching.get(&info_hash).into_iter().chain(self.seeding.get(&info_hash));
        running.for_each(|torrent| torrent.tell(Control::AddressesLeft(left.to_vec())));
        if let Some(torrent) = self.seeding.get(&info_hash) {
            let completed = came.iter().filter(|peer| peer.complete).map(|peer| peer.address);
            torrent.tell(Control::AddressesLeft(completed.collect()));
        }
        self.tell_of_stock_peers(listing);
    }

    /// Tells a torrent whom it may dial besides members. A share dials those that need something: they may be unable
    /// to dial it.
    pub(super) fn tell_of_stock_peers(&mut self, listing: ListingId) {
        let Some((info_hash, _)) = self.torrent_of(listing) else { return };
        let announced = self.plan.admissions.borrow().stock.announced(info_hash);
        let is_seeding = self.torrent_of_download(listing).is_none();
        let dialled = announced.into_iter().filter(|peer| may_dial(peer.address, self.loopback));
        let dialled = dialled.filter(|peer| !(is_seeding && peer.complete));
        let dialled: Vec<_> = dialled.map(|peer| peer.address).collect();
        if dialled.is_empty() {
            return;
        }
        let torrent = if is_seeding { self.seeding_torrent(info_hash) } else { self.torrent_of_download(listing) };
        if let Some(torrent) = torrent {
            torrent.tell(Control::AddressesCame(dialled));
        }
    }

    /// A share or a download has ended. Unless the other goes on, nobody tells who leaves the swarm.
    pub(super) fn forget_stock_peers(&self, listing: ListingId, info_hash: InfoHash) {
        if !self.shares.contains_key(&listing) && self.torrent_of_download(listing).is_none() {
            self.plan.admissions.send_modify(|admissions| admissions.stock.forget(info_hash));
        }
    }

    /// Forgets those whom no tracker has named again since the connection was lost.
    pub(super) fn forget_unconfirmed(&self) {
        self.plan.admissions.send_if_modified(|admissions| admissions.stock.forget_unconfirmed(Moment::now()));
    }

    /// A file that is shared or fetched here.
    fn torrent_of(&self, listing: ListingId) -> Option<(InfoHash, GroupId)> {
        let shared = self.shares.get(&listing).map(|entry| &entry.share.file);
        let mut downloads = self.downloads.values().map(|download| &download.file);
        let file = shared.or_else(|| downloads.find(|file| file.listing == listing))?;
        Some((file.info_hash, file.group_id))
    }
}
