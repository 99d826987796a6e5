//! The query of an HTTP announce or scrape.

#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mini_torrent_fuzz::announce_query(bytes));
