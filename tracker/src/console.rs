//! The operator's console: lines in, text out. Everything that came from users is escaped.

use crate::limits;
use crate::output;
use crate::service::{OnlineStockPeer, Service};
use mini_torrent_common::control::{Listing, PAGE_ROWS};
use mini_torrent_common::escape::{Escaped, is_treacherous};
use mini_torrent_common::names::{FileName, GroupName, UserName};
use mini_torrent_common::secret::Password;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, BufRead, IsTerminal, Read};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const HELP: &str = "\
list                         every file: group, name, size, seeders, leechers
fileinfo <file>              who seeds and who leeches a file, stock clients included, in every group that has it
peerinfo                     every connected client and every stock client, each once
create_user <user> [<pass>]  creates an account; without a password the next line is it
lock_user <user>             signs an account out everywhere and lets nobody sign in to it
unlock_user <user>           lets a locked account sign in again
export                       accounts, groups, files, announce keys (no secrets) and peers as JSON
help                         this
quit                         ends the tracker; everything is kept";

/// Runs console commands against a service.
pub(crate) struct Console {
    service: Arc<Service>,
    shutdown: CancellationToken,
    /// The account whose password is the next line.
    waiting_for_password: Option<UserName>,
}

impl Console {
    /// A console whose `quit` cancels `shutdown`.
    pub(crate) fn new(service: Arc<Service>, shutdown: CancellationToken) -> Self {
        Self { service, shutdown, waiting_for_password: None }
    }

    /// Answers the lines of standard input. Its end is not the end of the tracker, which may be a service.
    pub(crate) async fn run_on_stdin(mut self) {
        let is_terminal = io::stdin().is_terminal();
        let (lines_in, mut lines) = mpsc::channel(limits::MAX_QUEUED_LINES);
        // A thread of its own, because reading from a terminal cannot be cancelled.
        let reader = std::thread::Builder::new().name("console".into()).spawn(move || read_lines(&lines_in));
        if let Err(error) = reader {
            tracing::warn!(%error, "there is no console");
        }
        loop {
            if is_terminal {
                output::prompt(&self.prompt());
            }
            let Some(line) = lines.recv().await else { return };
            self.service.catch_up().await;
            let answer = self.answer(&line).await;
            if !answer.is_empty() {
                output::line(&answer);
            }
        }
    }

    /// What the next line is asked for with.
    fn prompt(&self) -> String {
        match &self.waiting_for_password {
            Some(user) => format!("password for {user} (next line): "),
            None => "tracker> ".into(),
        }
    }

    /// What a line brings about.
    pub(crate) async fn answer(&mut self, line: &str) -> String {
        if let Some(user) = self.waiting_for_password.take() {
            return self.create_user(user, line.trim_end_matches(['\r', '\n'])).await;
        }
        let (command, rest) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
        match (command, rest.trim()) {
            ("", _) => String::new(),
            ("help", _) => HELP.into(),
            ("list", "") => self.list().await,
            ("fileinfo", file) if !file.is_empty() => self.file_info(file).await,
            ("peerinfo", "") => self.peer_info(),
            ("create_user", words) if !words.is_empty() => self.begin_create_user(words).await,
            ("lock_user", user) if is_one_word(user) => self.set_locked(user, true).await,
            ("unlock_user", user) if is_one_word(user) => self.set_locked(user, false).await,
            ("export", "") => self.export().await,
            ("quit" | "exit", "") => {
                self.shutdown.cancel();
                String::new()
            }
            (
                "list" | "fileinfo" | "peerinfo" | "create_user" | "lock_user" | "unlock_user" | "export" | "quit"
                | "exit",
                _,
            ) => format!("error[usage]: wrong arguments for {command}; try help"),
            _ => format!("error[usage]: unknown command '{}'; try help", Escaped(command)),
        }
    }

    async fn list(&self) -> String {
        let (mut rows, mut after) = (Vec::new(), None);
        loop {
            let Ok(mut page) = self.service.store().all_listings(after, PAGE_ROWS).await else {
                return "error[store_unavailable]: the store does not answer".into();
            };
            self.service.fill_counts(page.iter_mut().map(|(_, listing)| listing));
            rows.extend(page.iter().map(|(group, listing)| row(group, listing)));
            after = page.last().map(|(_, listing)| listing.id);
            if page.len() < PAGE_ROWS {
                break;
            }
        }
        rows.sort();
        if rows.is_empty() { "no files".into() } else { rows.join("\n") }
    }

    async fn file_info(&self, file: &str) -> String {
        let Ok(name) = file.parse::<FileName>() else { return "error[invalid_name]: this is no file name".into() };
        let Ok(mut found) = self.service.store().listings_everywhere(name.clone()).await else {
            return "error[store_unavailable]: the store does not answer".into();
        };
        if found.is_empty() {
            return format!("error[no_such_file]: no group has a file {name}");
        }
        self.service.fill_counts(found.iter_mut().map(|(_, listing)| listing));
        let blocks = found.iter().map(|(group, listing)| {
            let mut lines = vec![row(group, listing)];
            lines.extend(self.peer_rows(listing));
            lines.join("\n")
        });
        blocks.collect::<Vec<_>>().join("\n")
    }

    fn peer_rows(&self, listing: &Listing) -> Vec<String> {
        let status = |complete| if complete { "seeder" } else { "leecher" };
        let members = self.service.presence().peers_of(listing.id).into_iter();
        let members = members.map(|peer| format!("  {} {} {}", status(peer.complete), peer.user, peer.address));
        let stock = self.service.stock_peers_of(listing.draft.info_hash).into_iter();
        let stock = stock.map(|peer| format!("  {} {} {}", status(peer.complete), named(&peer), peer.address));
        let mut rows: Vec<_> = members.chain(stock).collect();
        rows.sort_by(|a, b| b.cmp(a));
        rows
    }

    fn peer_info(&self) -> String {
        let clients = self.service.presence().online().into_iter().map(|online| {
            let user = online.user.map_or_else(|| "-".into(), |user| user.to_string());
            let (agent, peer_id) = (Escaped(&online.client.agent).to_string(), online.client.peer_id);
            let (n_seeding, n_leeching) = (online.n_seeding, online.n_leeching);
            format!("{} {user} {peer_id} seeding {n_seeding} leeching {n_leeching} {agent}", online.client.address)
        });
        let mut rows: Vec<_> = clients.collect();
        let (stock, n_more) = self.stock_clients();
        rows.extend(stock.iter().map(|one| {
            let StockClient { peer, n_seeding, n_leeching } = one;
            format!("{} {} seeding {n_seeding} leeching {n_leeching}", peer.address, named(peer))
        }));
        rows.sort();
        if n_more > 0 {
            rows.push(format!("and {n_more} more in swarms"));
        }
        if rows.is_empty() { "no peers".into() } else { rows.join("\n") }
    }

    /// Every ordinary client once, and how many peers had no room here.
    fn stock_clients(&self) -> (Vec<StockClient>, usize) {
        let (mut clients, mut n_more) = (BTreeMap::new(), 0);
        for info_hash in self.service.ordinary_files() {
            for peer in self.service.stock_peers_of(info_hash) {
                let whose = (peer.address, peer.user.clone());
                if clients.len() >= limits::MAX_STOCK_PEERS_SHOWN && !clients.contains_key(&whose) {
                    n_more += 1;
                    continue;
                }
                let (n_seeding, n_leeching) = (usize::from(peer.complete), usize::from(!peer.complete));
                let client = clients.entry(whose).or_insert(StockClient { peer, n_seeding: 0, n_leeching: 0 });
                client.n_seeding += n_seeding;
                client.n_leeching += n_leeching;
            }
        }
        (clients.into_values().collect(), n_more)
    }

    async fn begin_create_user(&mut self, words: &str) -> String {
        let (user, password) = words.split_once(char::is_whitespace).unwrap_or((words, ""));
        match (user.parse::<UserName>(), password.trim()) {
            (Err(error), _) => format!("error[invalid_name]: {error}"),
            (Ok(user), "") => {
                self.waiting_for_password = Some(user);
                String::new()
            }
            (Ok(user), password) => self.create_user(user, password).await,
        }
    }

    async fn create_user(&self, user: UserName, password: &str) -> String {
        match self.service.create_user(user.clone(), Password::new(password.into())).await {
            Ok(()) => format!("user {user} created"),
            Err(refused) => format!("error[{}]: {refused}", refused.code()),
        }
    }

    async fn set_locked(&self, user: &str, locked: bool) -> String {
        let user: UserName = match user.parse() {
            Ok(user) => user,
            Err(error) => return format!("error[invalid_name]: {error}"),
        };
        let (done, word) = match locked {
            true => (self.service.lock_user(user).await, "locked"),
            false => (self.service.unlock_user(user).await, "unlocked"),
        };
        match done {
            Ok(user) => format!("user {user} {word}"),
            Err(refused) => format!("error[{}]: {refused}", refused.code()),
        }
    }

    async fn export(&self) -> String {
        let Ok(mut document) = self.service.store().export().await else {
            return "error[store_unavailable]: the store does not answer".into();
        };
        let peers = self.service.presence().online().into_iter().map(|online| {
            json!({
                "address": online.client.address, "peer_id": online.client.peer_id.to_string(),
                "client": online.client.agent, "user": online.user.map(String::from),
                "seeding": online.n_seeding, "leeching": online.n_leeching,
            })
        });
        let (stock, _) = self.stock_clients();
        let stock = stock.into_iter().map(|StockClient { peer, n_seeding, n_leeching }| {
            json!({
                "address": peer.address, "stock_client_of": peer.user, "seeding": n_seeding, "leeching": n_leeching,
            })
        });
        document["peers"] = peers.chain(stock).collect();
        let text = serde_json::to_string_pretty(&document).unwrap_or_default();
        text.chars().map(json_escaped).collect()
    }
}

/// An ordinary client in all its swarms.
struct StockClient {
    peer: OnlineStockPeer,
    n_seeding: usize,
    n_leeching: usize,
}

/// An ordinary client by the member who answers for it.
fn named(peer: &OnlineStockPeer) -> String {
    peer.user.as_ref().map_or_else(|| "stock client without a key".into(), |user| format!("stock client of {user}"))
}

fn row(group: &GroupName, listing: &Listing) -> String {
    let Listing { draft, n_seeders, n_leechers, .. } = listing;
    format!("[{group}] {}: {} bytes, {n_seeders} seeders, {n_leechers} leechers", draft.name, draft.size)
}

fn is_one_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(char::is_whitespace)
}

/// JSON leaves some characters alone that could steer a terminal; all of them have a four-digit form in it.
fn json_escaped(c: char) -> String {
    match is_treacherous(c) && c != '\n' {
        true => format!("\\u{:04x}", u32::from(c)),
        false => c.to_string(),
    }
}

fn read_lines(lines: &mpsc::Sender<String>) {
    let mut input = io::stdin().lock();
    loop {
        let mut line = Vec::new();
        match input.by_ref().take(limits::MAX_CONSOLE_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) if lines.blocking_send(String::from_utf8_lossy(&line).into_owned()).is_err() => return,
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
