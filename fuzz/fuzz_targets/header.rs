//! safetensors headers: the first two bytes are the length of the data section, the rest is the header.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((length, header)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let data = u64::from(u16::from_le_bytes(*length));
    if let Ok((tensors, _)) = polyloom_core::safetensors::parse_header(header, data) {
        for tensor in tensors {
            let size = tensor
                .dtype
                .bytes_of(tensor.elements())
                .expect("whole elements");
            assert!(tensor.offset + size <= data, "{tensor:?} passes {data}");
        }
    }
});
