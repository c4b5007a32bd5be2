//! GGUF files.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok((tensors, _)) = polyloom_core::gguf::parse(bytes) {
        for tensor in tensors {
            let size = tensor
                .dtype
                .bytes_of(tensor.elements())
                .expect("whole blocks");
            assert!(tensor.offset + size <= bytes.len() as u64, "{tensor:?}");
        }
    }
});
