//! The key in the path of an announce URL.

#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mini_torrent_fuzz::announce_key(bytes));
