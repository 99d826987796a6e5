//! What a tracker reads: frames from clients.

#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mini_torrent_fuzz::control_from_client(bytes));
