//! What a client reads: frames from trackers.

#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mini_torrent_fuzz::control_from_tracker(bytes));
