//! What stands behind a ticket's good signature.

#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mini_torrent_fuzz::ticket_body(bytes));
