//! The text of a `tracker_info.txt`.

#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mini_torrent_fuzz::tracker_info(bytes));
