#![no_main]

#[path = "../bodies_learn.rs"]
mod bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    bodies::calibration(bytes);
});
