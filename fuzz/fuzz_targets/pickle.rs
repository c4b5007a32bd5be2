//! The restricted unpickler on bare `data.pkl` bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = polyloom_core::pickle::parse_pickle(bytes);
});
