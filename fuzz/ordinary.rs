//! The inputs that come from ordinary BitTorrent programs: metainfo files, links, announces, extensions.

use bytes::Bytes;
use mini_torrent_common::announce::{self, Answer, MAX_ANSWER_PEERS, MAX_NUMWANT, MAX_SCRAPE_HASHES, ScrapeAnswer};
use mini_torrent_common::announce_key::AnnounceKey;
use mini_torrent_common::hash::InfoHash;
use mini_torrent_common::magnet::Magnet;
use mini_torrent_common::mtorrent::Mtorrent;
use mini_torrent_common::peer_extension::{MAX_PEX_PEERS, Metadata, Pex};
use mini_torrent_common::peer_wire::Message;
use mini_torrent_common::torrent::Torrent;
use mini_torrent_common::udp_announce::{self, Family, MAX_URL_DATA_LENGTH, Request, Response};

/// A `.torrent` file: the info-hash is that of the raw bytes, which are written as they stood.
pub fn torrent(bytes: &[u8]) {
    let Ok(torrent) = Torrent::decode(bytes) else { return };
    assert_eq!(torrent.info_hash(), InfoHash::of(torrent.raw_info()));
    assert!(bytes.windows(torrent.raw_info().len()).any(|window| window == torrent.raw_info()));
    assert_eq!(Torrent::decode(&torrent.encode()), Ok(torrent));
}

/// The text of a `.mtorrent`: what is written of it is read and written alike.
pub fn mtorrent(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(file) = Mtorrent::parse(text) else { return };
    assert_eq!(file.pieces.len(), file.geometry.n_pieces() as usize);
    let written = file.to_string();
    let again = Mtorrent::parse(&written).expect("our own text is well formed");
    assert_eq!(again.to_string(), written);
    assert_eq!((again.trackers, again.name, again.geometry), (file.trackers, file.name, file.geometry));
    assert_eq!((again.info_hash, again.group), (file.info_hash, file.group));
}

/// A magnet link: what was read of it is written and read alike, unless escaping makes it too long.
pub fn magnet(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(link) = text.parse::<Magnet>() else { return };
    let written = link.to_string();
    if written.len() <= mini_torrent_common::magnet::MAX_LENGTH {
        assert_eq!(written.parse(), Ok(link));
    }
}

/// The query of an HTTP announce, and of a scrape.
pub fn announce_query(bytes: &[u8]) {
    if let Ok(mut request) = announce::AnnounceRequest::from_query(bytes) {
        assert!(request.port != 0 && request.numwant.is_none_or(|n| n <= MAX_NUMWANT));
        request.declared_ip = None;
        assert_eq!(announce::AnnounceRequest::from_query(request.to_query().as_bytes()), Ok(request));
    }
    if let Ok(hashes) = announce::scrape_hashes(bytes) {
        assert!((1..=MAX_SCRAPE_HASHES).contains(&hashes.len()));
        assert_eq!(announce::scrape_hashes(announce::scrape_query(&hashes).as_bytes()), Ok(hashes));
    }
}

/// What an HTTP tracker answers: the peers, sent on by a tracker of ours, are the same.
pub fn announce_answer(bytes: &[u8]) {
    if let Ok(Answer::Peers { interval_s, min_interval_s, counts, warning, peers }) = Answer::decode(bytes) {
        assert!(peers.len() <= MAX_ANSWER_PEERS && peers.iter().all(|peer| peer.address.port() != 0));
        let reply = announce::Reply { interval_s, min_interval_s, counts, warning: warning.as_deref(), peers: &peers };
        let mut body = Vec::new();
        reply.write_dictionaries(&mut body);
        let Ok(Answer::Peers { peers: again, counts: counted, .. }) = Answer::decode(&body) else {
            panic!("our own reply is well formed")
        };
        assert_eq!((&again, counted), (&peers, counts));
        body.clear();
        reply.write_compact(&mut body);
        let Ok(Answer::Peers { peers: again, .. }) = Answer::decode(&body) else {
            panic!("our own reply is well formed")
        };
        assert_eq!(again.len(), peers.len());
    }
    if let Ok(ScrapeAnswer::Files(files)) = ScrapeAnswer::decode(bytes) {
        let mut body = Vec::new();
        announce::write_scrape(&mut body, &files);
        // A row is longer when the tracker left out a number.
        if body.len() <= announce::MAX_ANSWER_LENGTH {
            assert_eq!(ScrapeAnswer::decode(&body), Ok(ScrapeAnswer::Files(files)));
        }
    }
}

/// A packet to a UDP tracker.
pub fn udp_request(bytes: &[u8]) {
    let Ok(request) = Request::decode(bytes) else { return };
    let mut written = Vec::new();
    request.encode(&mut written);
    assert_eq!(Request::decode(&written), Ok(request));
    let Request::Announce(announce) = request else { return };
    let mut scratch = [0; MAX_URL_DATA_LENGTH];
    let Ok(url_data) = announce.options.url_data(&mut scratch) else { return };
    written.clear();
    announce.encode_with_url_data(url_data, &mut written);
    let Ok(Request::Announce(again)) = Request::decode(&written) else { panic!("our own packet is well formed") };
    assert_eq!(again.options.url_data(&mut [0; MAX_URL_DATA_LENGTH]), Ok(url_data));
}

/// A packet from a UDP tracker. The first byte chooses the family.
pub fn udp_response(bytes: &[u8]) {
    let (choice, bytes) = super::choice(bytes);
    let family = if choice & 1 == 0 { Family::V4 } else { Family::V6 };
    let Ok(response) = Response::decode(bytes, family) else { return };
    assert!(response.counts().count() <= udp_announce::MAX_SCRAPE_HASHES);
    let mut out = vec![0; bytes.len()];
    let id = response.transaction_id();
    let length = match response {
        Response::Connect { connection_id, .. } => udp_announce::encode_connect(&mut out, id, connection_id),
        Response::Scrape { .. } => udp_announce::encode_scrape(&mut out, id, response.counts()),
        Response::Error { reason, .. } => match std::str::from_utf8(reason) {
            Ok(reason) => udp_announce::encode_error(&mut out, id, reason),
            Err(_) => return,
        },
        Response::Announce { peers, .. } => {
            assert!(peers.addresses().count() <= MAX_ANSWER_PEERS);
            assert!(peers.addresses().all(|address| address.port() != 0));
            return;
        }
    };
    let length = length.expect("it is no longer than what came");
    assert_eq!(out.get(..length), bytes.get(..length));
}

/// The body of a message of an extension. The first byte chooses the extension.
pub fn peer_extension(bytes: &[u8]) {
    let (choice, bytes) = super::choice(bytes);
    let body = |message| match message {
        Message::Extended { body, .. } => body,
        other => panic!("{other:?} is no message of an extension"),
    };
    if choice & 1 == 0 {
        let Ok(metadata) = Metadata::decode(&Bytes::copy_from_slice(bytes)) else { return };
        assert_eq!(Metadata::decode(&body(metadata.to_message(1))), Ok(metadata));
    } else {
        let Ok(pex) = Pex::decode(bytes) else { return };
        assert!(pex.added.len() <= MAX_PEX_PEERS && pex.dropped.len() <= MAX_PEX_PEERS);
        let again = Pex::decode(&body(pex.to_message(1))).expect("our own message is well formed");
        assert_eq!((again.added.len(), again.dropped.len()), (pex.added.len(), pex.dropped.len()));
    }
}

/// The key in the path of an announce URL: only its one text is read.
pub fn announce_key(bytes: &[u8]) {
    let Ok(key) = AnnounceKey::from_text(bytes) else { return };
    assert_eq!(key.expose().as_bytes(), bytes);
}
