//! Lists of events into the engine.

#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mini_torrent_fuzz::engine_events(bytes));
