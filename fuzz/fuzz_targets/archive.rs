//! Whole PyTorch archives: zip directory, pickle and views against their storages.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(tensors) = polyloom_core::pickle::parse_archive(bytes) {
        for tensor in tensors {
            assert!(tensor.elements() <= bytes.len(), "{tensor:?}");
            assert!(tensor.offset <= bytes.len() as u64, "{tensor:?}");
        }
    }
});
