//! A packet to a UDP tracker.

#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mini_torrent_fuzz::udp_request(bytes));
