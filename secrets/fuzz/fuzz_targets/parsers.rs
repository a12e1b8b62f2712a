//! All parsers of the crate.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| secrets::fuzz(bytes));
