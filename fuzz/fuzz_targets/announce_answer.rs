//! What an HTTP tracker answers.

#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mini_torrent_fuzz::announce_answer(bytes));
