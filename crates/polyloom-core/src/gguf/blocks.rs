//! GGUF's block types, widened exactly as ggml does: one `f32` multiplication after another, nothing fused.

use half::f16;

use crate::dtype::DType;

/// Widens whole blocks. `bytes` holds `out.len() / block` blocks; other types are left alone.
///
/// - `Q8_0`: 32 elements `d * q`, `q` signed bytes.
/// - `Q4_0`: 32 elements `d * (q - 8)`; low nibbles are elements 0..16, high nibbles 16..32.
/// - `Q4_K`: 8 sub-blocks of 32 elements `(d * scale) * q - (dmin * min)`, scales and minima of 6 bits.
/// - `Q6_K`: 16 sub-blocks of 16 elements `(d * scale) * (q - 32)`, scales signed bytes.
pub fn dequantise(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        DType::Q8_0 => blocks(bytes, out, q8_0),
        DType::Q4_0 => blocks(bytes, out, q4_0),
        DType::Q4K => blocks(bytes, out, q4_k),
        DType::Q6K => blocks(bytes, out, q6_k),
        _ => {}
    }
}

fn blocks<const BYTES: usize, const N: usize>(
    bytes: &[u8],
    out: &mut [f32],
    widen: impl Fn(&[u8; BYTES], &mut [f32; N]),
) {
    let (from, _) = bytes.as_chunks::<BYTES>();
    let (to, _) = out.as_chunks_mut::<N>();
    for (block, values) in from.iter().zip(to) {
        widen(block, values);
    }
}

fn half(low: u8, high: u8) -> f32 {
    f16::from_le_bytes([low, high]).to_f32()
}

fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = half(block[0], block[1]);
    for (value, q) in out.iter_mut().zip(&block[2..]) {
        *value = f32::from(q.cast_signed()) * d;
    }
}

fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = half(block[0], block[1]);
    let (low, high) = out.split_at_mut(16);
    for ((l, h), q) in low.iter_mut().zip(high).zip(&block[2..]) {
        *l = f32::from((q & 0xF).cast_signed() - 8) * d;
        *h = f32::from((q >> 4).cast_signed() - 8) * d;
    }
}

/// Scale and minimum of sub-block `i` of a `Q4_K` block: 6 bits each, those of sub-blocks 4..8 in two parts.
fn scale_and_min(packed: &[u8], i: usize) -> (f32, f32) {
    let (scale, min) = if i < 4 {
        (packed[i] & 0x3F, packed[i + 4] & 0x3F)
    } else {
        (
            packed[i + 4] & 0x0F | packed[i - 4] >> 6 << 4,
            packed[i + 4] >> 4 | packed[i] >> 6 << 4,
        )
    };
    (f32::from(scale), f32::from(min))
}

fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let (d, dmin) = (half(block[0], block[1]), half(block[2], block[3]));
    let (packed, nibbles) = (&block[4..16], &block[16..]);
    for (i, values) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = scale_and_min(packed, i);
        let (scale, min) = (d * scale, dmin * min);
        // 32 bytes hold two sub-blocks: the first in low nibbles, the second in high ones.
        let shift = i % 2 * 4;
        for (value, q) in values.iter_mut().zip(&nibbles[i / 2 * 32..]) {
            *value = scale * f32::from(q >> shift & 0xF) - min;
        }
    }
}

fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let (low, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    let d = half(rest[16], rest[17]);
    for (group, values) in out.chunks_exact_mut(32).enumerate() {
        // Each half of the block: four groups of 32 share 64 bytes of low nibbles and 32 bytes of high bit pairs.
        let (part, g) = (group / 4, group % 4);
        let low = &low[part * 64 + g % 2 * 32..];
        let high = &high[part * 32..];
        for (l, value) in values.iter_mut().enumerate() {
            let q = low[l] >> (g / 2 * 4) & 0xF | (high[l] >> (g * 2) & 3) << 4;
            let scale = f32::from(rest[group * 2 + l / 16].cast_signed());
            *value = d * scale * f32::from(q.cast_signed() - 32);
        }
    }
}
