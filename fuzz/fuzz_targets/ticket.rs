//! A ticket as a peer shows it, and an endorsement as the store keeps it.

#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mini_torrent_fuzz::ticket(bytes));
