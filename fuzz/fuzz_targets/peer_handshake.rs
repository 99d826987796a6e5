//! The first 68 bytes of a peer.

#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mini_torrent_fuzz::peer_handshake(bytes));
