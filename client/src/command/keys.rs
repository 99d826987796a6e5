//! Ordinary BitTorrent clients of a member: export_torrent, keys, revoke_key.

use mini_torrent_common::address::Endpoint;
use mini_torrent_common::announce_key::AnnounceKey;
use mini_torrent_common::control::{KeyId, KeyRow, Request, Response};
use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::escape::Escaped;
use mini_torrent_common::torrent::Torrent;
use mini_torrent_common::tracker_info::TrackerAddress;
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::group::{rfc3339, table};
use super::{Context, known_file, known_group};
use crate::error::CommandError;
use crate::output::{Outcome, Reply, show_path};

impl Context {
    pub(super) async fn export_torrent(&self, group: &str, file: &str, path: &Path) -> Outcome {
        self.signed_in()?;
        let (group, file) = (known_group(group)?, known_file(file)?);
        let path = std::path::absolute(path).map_err(|error| CommandError::io(path, &error))?;
        let listing = self.find_file(&group, &file).await?;
        let (raw_info, _) = self.fetch_info(&group, &listing, Vec::new()).await?;
        // Before a key is made: nobody needs one that stands nowhere.
        let mut new = create_private(&path)?;
        let written = async {
            let granted = match self.link.request(Request::CreateKey { listing: listing.id }).await? {
                Response::Key(granted) => granted,
                other => return Err(CommandError::unexpected(other)),
            };
            let torrent = Torrent::new(announce_urls(&self.trackers, &granted.key), raw_info)
                .map_err(|error| CommandError::new(ErrorCode::InvalidMetainfo, error.to_string()))?;
            if let Err(error) = new.write_all(&torrent.encode()).and_then(|()| new.sync_all()) {
                // Nobody has it; if the tracker is gone now, `keys` still shows it.
                let _ = self.link.request(Request::RevokeKey { id: granted.id }).await;
                return Err(CommandError::io(&path, &error));
            }
            Ok(granted.id)
        };
        let id = match written.await {
            Ok(id) => id,
            Err(error) => {
                // It is ours and of no use.
                let _ = std::fs::remove_file(&path);
                return Err(error);
            }
        };
        let text = format!(
            "wrote {}: it carries your announce key {}, which opens {file} alone; keep it to yourself",
            show_path(&path),
            id.0
        );
        let fields = json!({
            "group": group.as_str(), "file": listing.draft.name.as_str(), "torrent": path.to_string_lossy(), "key": id.0,
        });
        Ok(Reply::line(text, fields))
    }

    pub(super) async fn keys(&self) -> Outcome {
        self.signed_in()?;
        let keys = match self.link.request(Request::ListKeys).await? {
            Response::Keys(keys) => keys,
            other => return Err(CommandError::unexpected(other)),
        };
        let text = match keys.is_empty() {
            true => vec!["no keys".to_owned()],
            false => table(&["KEY", "GROUP", "FILE", "LAST ADDRESS", "LAST USE", ""], keys.iter().map(cells)),
        };
        let rows = keys.iter().map(|key| {
            json!({
                "id": key.id.0, "group": key.group.as_str(), "file": key.file.as_str(), "address": key.address,
                "used": key.used_ms.map(rfc3339), "suspended": key.suspended,
            })
        });
        Ok(Reply::lines(text, json!({ "keys": rows.collect::<Vec<_>>() })))
    }

    pub(super) async fn revoke_key(&self, id: &str) -> Outcome {
        self.signed_in()?;
        let unknown = |_| CommandError::new(ErrorCode::NoSuchKey, format!("there is no key '{id}'"));
        let id = id.parse().map(KeyId).map_err(unknown)?;
        self.link.request(Request::RevokeKey { id }).await?;
        Ok(Reply::line(format!("key {} is revoked", id.0), json!({ "id": id.0 })))
    }
}

/// Creates a file that only its user can read; it must not exist.
fn create_private(path: &Path) -> Result<File, CommandError> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    opened.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            CommandError::new(ErrorCode::DestinationExists, format!("{} exists", path.display()))
        }
        _ => CommandError::io(path, &error),
    })
}

/// Each tracker by HTTP and by UDP, each in a tier of its own: a client that sends no URL data by UDP (BEP 41) stays
/// with HTTP.
fn announce_urls(trackers: &[TrackerAddress], key: &AnnounceKey) -> Vec<Vec<String>> {
    let urls = trackers.iter().flat_map(|tracker| {
        let endpoint = Endpoint { host: tracker.host.clone(), port: tracker.port };
        ["http", "udp"].map(|scheme| vec![format!("{scheme}://{endpoint}/{}/announce", key.expose())])
    });
    urls.collect()
}

fn cells(key: &KeyRow) -> Vec<String> {
    let address = key.address.as_ref().map_or_else(|| "-".to_owned(), |address| Escaped(address).to_string());
    let used = key.used_ms.map_or_else(|| "never".to_owned(), rfc3339);
    let state = if key.suspended { "suspended" } else { "" };
    vec![key.id.0.to_string(), key.group.to_string(), key.file.to_string(), address, used, state.to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_personal_torrent_names_every_tracker_by_both_protocols() {
        let trackers = mini_torrent_common::tracker_info::parse("10.0.0.1:7000\n[::1]:7001\n").unwrap();
        let key = "0123456789abcdef0123456789abcdef".parse().unwrap();
        assert_eq!(
            announce_urls(&trackers, &key).concat(),
            [
                "http://10.0.0.1:7000/0123456789abcdef0123456789abcdef/announce",
                "udp://10.0.0.1:7000/0123456789abcdef0123456789abcdef/announce",
                "http://[::1]:7001/0123456789abcdef0123456789abcdef/announce",
                "udp://[::1]:7001/0123456789abcdef0123456789abcdef/announce",
            ]
        );
    }

    #[test]
    fn an_exported_file_is_its_users_alone_and_replaces_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.torrent");
        create_private(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(create_private(&path).unwrap_err().code, ErrorCode::DestinationExists);
    }
}
