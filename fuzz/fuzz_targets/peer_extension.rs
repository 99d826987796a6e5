//! The body of a message of an extension of the peer wire protocol.

#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mini_torrent_fuzz::peer_extension(bytes));
