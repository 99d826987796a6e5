//! A peer's messages, cut anywhere.

#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mini_torrent_fuzz::peer_wire(bytes));
