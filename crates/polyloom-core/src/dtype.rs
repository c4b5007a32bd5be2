//! Element types on disk, and the only place where stored bytes become `f32` and back.

use half::{bf16, f16};

use crate::wide::wide;

/// The type of a stored element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum DType {
    F64,
    F32,
    F16,
    BF16,
    /// 8-bit float, 4 exponent bits, no infinities (`F8_E4M3`).
    F8E4M3,
    /// 8-bit float, 5 exponent bits (`F8_E5M2`).
    F8E5M2,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
    /// GGUF: 32 elements as one f16 scale and 32 signed bytes.
    Q8_0,
    /// GGUF: 32 elements as one f16 scale and 32 nibbles.
    Q4_0,
    /// GGUF: 256 elements, 4 bits, 8 sub-blocks with 6-bit scales and minima.
    Q4K,
    /// GGUF: 256 elements, 6 bits, 16 sub-blocks with 8-bit scales.
    Q6K,
}

impl DType {
    /// The name used in safetensors headers, or GGUF's name for block types.
    pub fn name(self) -> &'static str {
        match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::F8E4M3 => "F8_E4M3",
            Self::F8E5M2 => "F8_E5M2",
            Self::I64 => "I64",
            Self::I32 => "I32",
            Self::I16 => "I16",
            Self::I8 => "I8",
            Self::U64 => "U64",
            Self::U32 => "U32",
            Self::U16 => "U16",
            Self::U8 => "U8",
            Self::Bool => "BOOL",
            Self::Q8_0 => "Q8_0",
            Self::Q4_0 => "Q4_0",
            Self::Q4K => "Q4_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Reads a safetensors header name.
    pub fn from_safetensors(name: &str) -> Option<Self> {
        Some(match name {
            "F64" => Self::F64,
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::BF16,
            "F8_E4M3" => Self::F8E4M3,
            "F8_E5M2" => Self::F8E5M2,
            "I64" => Self::I64,
            "I32" => Self::I32,
            "I16" => Self::I16,
            "I8" => Self::I8,
            "U64" => Self::U64,
            "U32" => Self::U32,
            "U16" => Self::U16,
            "U8" => Self::U8,
            "BOOL" => Self::Bool,
            _ => return None,
        })
    }

    /// Reads the words users write: `bf16`, `bfloat16`, `torch.bfloat16`, `f32`, `float32`, `half`, ...
    pub fn from_word(word: &str) -> Option<Self> {
        let word = word
            .strip_prefix("torch.")
            .unwrap_or(word)
            .to_ascii_lowercase();
        Some(match word.as_str() {
            "f64" | "float64" | "double" => Self::F64,
            "f32" | "float32" | "float" => Self::F32,
            "f16" | "fp16" | "float16" | "half" => Self::F16,
            "bf16" | "bfloat16" => Self::BF16,
            "f8_e4m3" | "f8e4m3" | "float8_e4m3fn" | "fp8_e4m3" => Self::F8E4M3,
            "f8_e5m2" | "f8e5m2" | "float8_e5m2" | "fp8_e5m2" => Self::F8E5M2,
            "i64" | "int64" | "long" => Self::I64,
            _ => return None,
        })
    }

    /// The word of `config.json` (`torch_dtype`, `dtype`).
    pub fn torch_name(self) -> &'static str {
        match self {
            Self::F64 => "float64",
            Self::F16 => "float16",
            Self::BF16 => "bfloat16",
            Self::F8E4M3 => "float8_e4m3fn",
            Self::F8E5M2 => "float8_e5m2",
            Self::I64 => "int64",
            Self::I32 => "int32",
            Self::I16 => "int16",
            Self::I8 => "int8",
            Self::U8 => "uint8",
            Self::Bool => "bool",
            _ => "float32",
        }
    }

    /// Elements and bytes of one indivisible block (1 element for plain types).
    pub fn block(self) -> (usize, usize) {
        match self {
            Self::F64 | Self::I64 | Self::U64 => (1, 8),
            Self::F32 | Self::I32 | Self::U32 => (1, 4),
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => (1, 2),
            Self::F8E4M3 | Self::F8E5M2 | Self::I8 | Self::U8 | Self::Bool => (1, 1),
            Self::Q8_0 => (32, 34),
            Self::Q4_0 => (32, 18),
            Self::Q4K => (256, 144),
            Self::Q6K => (256, 210),
        }
    }

    /// Bytes of `elements` elements; `None` if they do not fill whole blocks or the product overflows.
    pub fn bytes_of(self, elements: usize) -> Option<u64> {
        let (per, bytes) = self.block();
        if !elements.is_multiple_of(per) {
            return None;
        }
        u64::try_from(elements / per)
            .ok()?
            .checked_mul(bytes as u64)
    }

    /// True for types whose values are real numbers (the ones a merge computes with).
    pub fn is_float(self) -> bool {
        matches!(
            self,
            Self::F64 | Self::F32 | Self::F16 | Self::BF16 | Self::F8E4M3 | Self::F8E5M2
        ) || self.is_block()
    }

    /// True for GGUF block types.
    pub fn is_block(self) -> bool {
        self.block().0 > 1
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

fn f8e4m3_to_f32(b: u8) -> f32 {
    let sign = if b & 0x80 != 0 { -1.0f32 } else { 1.0 };
    let (e, m) = ((b >> 3) & 0xF, b & 7);
    match (e, m) {
        (0xF, 7) => f32::NAN,
        (0, m) => sign * f32::from(m) * 2f32.powi(-9),
        (e, m) => sign * (1.0 + f32::from(m) / 8.0) * 2f32.powi(i32::from(e) - 7),
    }
}

fn f8e5m2_to_f32(b: u8) -> f32 {
    f16::from_bits(u16::from(b) << 8).to_f32()
}

/// Nearest `F8_E4M3`, ties to even; out of range becomes NaN as in PyTorch's `float8_e4m3fn`.
fn f32_to_f8e4m3(x: f32) -> u8 {
    let sign = if x.is_sign_negative() { 0x80 } else { 0 };
    let a = x.abs();
    // Halfway between 448 (largest) and the 480 that the format lacks rounds to even, that is up: NaN.
    if a.is_nan() || a >= 464.0 {
        return sign | 0x7F;
    }
    let e = ((a.to_bits() >> 23) as i32 - 127).max(-6);
    let units = (a / 2f32.powi(e - 3)).round_ties_even() as u32; // 0..=16, exact: division by a power of two
    // Normal numbers hold 8..=15 units of 2^(e-3); 16 carries into the exponent by plain addition.
    if units < 8 {
        sign | units as u8
    } else {
        sign | ((((e + 7) as u32) << 3) + (units - 8)) as u8
    }
}

/// Nearest `F8_E5M2`, ties to even.
fn f32_to_f8e5m2(x: f32) -> u8 {
    if x.is_nan() {
        return 0x7F;
    }
    let sign = if x.is_sign_negative() { 0x80 } else { 0 };
    let a = x.abs();
    if a >= 61440.0 {
        return sign | 0x7C;
    }
    let e = ((a.to_bits() >> 23) as i32 - 127).max(-14);
    let units = (a / 2f32.powi(e - 2)).round_ties_even() as u32;
    if units < 4 {
        sign | units as u8
    } else {
        sign | ((((e + 15) as u32) << 2) + (units - 4)) as u8
    }
}

fn each<const N: usize>(bytes: &[u8], out: &mut [f32], f: impl Fn([u8; N]) -> f32) {
    let (words, _) = bytes.as_chunks::<N>();
    wide(
        #[inline(always)]
        || {
            for (o, w) in out.iter_mut().zip(words) {
                *o = f(*w);
            }
        },
    );
}

/// As [`each`] for conversions that give the bits, less the values of `minus` if there are any; `true` if all values
/// are finite before that.
fn each_finite<const N: usize>(
    bytes: &[u8],
    minus: Option<&[f32]>,
    out: &mut [f32],
    f: impl Fn([u8; N]) -> u32,
) -> bool {
    const EXPONENT: u32 = 0x7F80_0000;
    let (words, _) = bytes.as_chunks::<N>();
    wide(
        #[inline(always)]
        || {
            let mut bad = 0;
            match minus {
                None => {
                    for (o, w) in out.iter_mut().zip(words) {
                        let bits = f(*w);
                        bad |= u32::from(bits & EXPONENT == EXPONENT);
                        *o = f32::from_bits(bits);
                    }
                }
                Some(minus) => {
                    for ((o, w), m) in out.iter_mut().zip(words).zip(minus) {
                        let bits = f(*w);
                        bad |= u32::from(bits & EXPONENT == EXPONENT);
                        *o = f32::from_bits(bits) - m;
                    }
                }
            }
            bad == 0
        },
    )
}

/// [`widen`] less other values, in one go; `true` if all values were finite before that. `false` also for types that it
/// is not made for (all but `bf16` and `f32`).
///
/// # Panics
/// If the lengths do not agree.
pub fn widen_less(dtype: DType, bytes: &[u8], minus: &[f32], out: &mut [f32]) -> bool {
    assert_eq!(
        (dtype.bytes_of(out.len()), minus.len()),
        (Some(bytes.len() as u64), out.len()),
        "widen: lengths of {dtype}"
    );
    match dtype {
        DType::F32 => each_finite(bytes, Some(minus), out, u32::from_le_bytes),
        DType::BF16 => each_finite(bytes, Some(minus), out, bf16_bits),
        _ => false,
    }
}

fn bf16_bits(bytes: [u8; 2]) -> u32 {
    u32::from(u16::from_le_bytes(bytes)) << 16
}

/// Widens stored little-endian bytes to `f32`. `bytes` must hold exactly `out.len()` elements.
///
/// Integers and booleans convert by value; 64-bit types round to the nearest `f32`. `true` says that all values are
/// known to be finite (`bf16` and `f32` are looked at on the way); `false` says nothing.
///
/// # Panics
/// If the lengths do not agree (an invariant of the callers in this crate).
pub fn widen(dtype: DType, bytes: &[u8], out: &mut [f32]) -> bool {
    assert_eq!(
        dtype.bytes_of(out.len()),
        Some(bytes.len() as u64),
        "widen: length of {dtype}"
    );
    match dtype {
        DType::F32 => return each_finite(bytes, None, out, u32::from_le_bytes),
        DType::BF16 => {
            return each_finite(bytes, None, out, bf16_bits);
        }
        DType::F16 => widen_f16(bytes, out),
        DType::F64 => each(bytes, out, |b| f64::from_le_bytes(b) as f32),
        DType::F8E4M3 => each(bytes, out, |[b]| f8e4m3_to_f32(b)),
        DType::F8E5M2 => each(bytes, out, |[b]| f8e5m2_to_f32(b)),
        DType::I64 => each(bytes, out, |b| i64::from_le_bytes(b) as f32),
        DType::I32 => each(bytes, out, |b| i32::from_le_bytes(b) as f32),
        DType::I16 => each(bytes, out, |b| f32::from(i16::from_le_bytes(b))),
        DType::I8 => each(bytes, out, |[b]| f32::from(b.cast_signed())),
        DType::U64 => each(bytes, out, |b| u64::from_le_bytes(b) as f32),
        DType::U32 => each(bytes, out, |b| u32::from_le_bytes(b) as f32),
        DType::U16 => each(bytes, out, |b| f32::from(u16::from_le_bytes(b))),
        DType::U8 => each(bytes, out, |[b]| f32::from(b)),
        DType::Bool => each(bytes, out, |[b]| f32::from(u8::from(b != 0))),
        DType::Q8_0 | DType::Q4_0 | DType::Q4K | DType::Q6K => {
            crate::gguf::dequantise(dtype, bytes, out);
        }
    }
    false
}

/// Takes values off others.
pub fn subtract(from: &mut [f32], values: &[f32]) {
    wide(
        #[inline(always)]
        || {
            for (v, m) in from.iter_mut().zip(values) {
                *v -= *m;
            }
        },
    );
}

fn widen_f16(bytes: &[u8], out: &mut [f32]) {
    if let Ok(halves) = bytemuck::try_cast_slice::<u8, f16>(bytes)
        && cfg!(target_endian = "little")
    {
        half::slice::HalfFloatSliceExt::convert_to_f32_slice(halves, out);
    } else {
        each(bytes, out, |b| f16::from_le_bytes(b).to_f32());
    }
}

/// Narrows `f32` to stored bytes, rounding to nearest, ties to even. Returns how many finite values became infinite
/// (or NaN, for `F8_E4M3`).
///
/// # Panics
/// If the lengths do not agree, or for a block type (nothing is ever written in one).
pub fn narrow(values: &[f32], dtype: DType, out: &mut [u8]) -> usize {
    assert_eq!(
        dtype.bytes_of(values.len()),
        Some(out.len() as u64),
        "narrow: length of {dtype}"
    );
    fn put<const N: usize>(values: &[f32], out: &mut [u8], f: impl Fn(f32) -> [u8; N]) {
        let (words, _) = out.as_chunks_mut::<N>();
        wide(
            #[inline(always)]
            || {
                for (w, v) in words.iter_mut().zip(values) {
                    *w = f(*v);
                }
            },
        );
    }
    match dtype {
        DType::F32 => put(values, out, f32::to_le_bytes),
        DType::BF16 => {
            // One branch-free pass; NaN keeps its sign and stays a NaN.
            put(values, out, |v| {
                let bits = v.to_bits();
                let rounded = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16;
                let nan = (bits >> 16) | 0x40;
                (if v.is_nan() { nan } else { rounded } as u16).to_le_bytes()
            });
            return overflow(values, bf16::MAX.to_f32().to_bits() + 0x8000);
        }
        DType::F16 => {
            if let Ok(halves) = bytemuck::try_cast_slice_mut::<u8, f16>(out)
                && cfg!(target_endian = "little")
            {
                half::slice::HalfFloatSliceExt::convert_from_f32_slice(halves, values);
            } else {
                put(values, out, |v| f16::from_f32(v).to_le_bytes());
            }
            return overflow(values, 65520f32.to_bits());
        }
        DType::F64 => put(values, out, |v| f64::from(v).to_le_bytes()),
        DType::F8E4M3 => {
            put(values, out, |v| [f32_to_f8e4m3(v)]);
            return overflow(values, 464f32.to_bits());
        }
        DType::F8E5M2 => {
            put(values, out, |v| [f32_to_f8e5m2(v)]);
            return overflow(values, 61440f32.to_bits());
        }
        DType::I64 => put(values, out, |v| (v as i64).to_le_bytes()),
        DType::I32 => put(values, out, |v| (v as i32).to_le_bytes()),
        DType::I16 => put(values, out, |v| (v as i16).to_le_bytes()),
        DType::I8 => put(values, out, |v| (v as i8).to_le_bytes()),
        DType::U64 => put(values, out, |v| (v as u64).to_le_bytes()),
        DType::U32 => put(values, out, |v| (v as u32).to_le_bytes()),
        DType::U16 => put(values, out, |v| (v as u16).to_le_bytes()),
        DType::U8 => put(values, out, |v| [v as u8]),
        DType::Bool => put(values, out, |v| [u8::from(v != 0.0)]),
        DType::Q8_0 | DType::Q4_0 | DType::Q4K | DType::Q6K => {
            unreachable!("block types are never written")
        }
    }
    0
}

/// Counts finite values whose magnitude bits reach `limit` (the first that rounds past the target's range).
fn overflow(values: &[f32], limit: u32) -> usize {
    let count = |values: &[f32]| -> u32 {
        wide(
            #[inline(always)]
            || {
                values
                    .iter()
                    .map(|v| {
                        let bits = v.to_bits() & 0x7FFF_FFFF;
                        u32::from((bits >= limit) & (bits < 0x7F80_0000))
                    })
                    .sum()
            },
        )
    };
    values.chunks(1 << 20).map(|v| count(v) as usize).sum()
}

/// Rounds every value to the nearest value of `dtype` (and back), as a peer does that casts its inputs first.
pub fn round_through(values: &mut [f32], dtype: DType) {
    match dtype {
        DType::BF16 => values
            .iter_mut()
            .for_each(|v| *v = bf16::from_f32(*v).to_f32()),
        DType::F16 => values
            .iter_mut()
            .for_each(|v| *v = f16::from_f32(*v).to_f32()),
        DType::F8E4M3 => values
            .iter_mut()
            .for_each(|v| *v = f8e4m3_to_f32(f32_to_f8e4m3(*v))),
        DType::F8E5M2 => values
            .iter_mut()
            .for_each(|v| *v = f8e5m2_to_f32(f32_to_f8e5m2(*v))),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fp8_round_trips_every_code() {
        for b in 0..=255u8 {
            let x = f8e4m3_to_f32(b);
            if !x.is_nan() {
                assert_eq!(f32_to_f8e4m3(x), b, "e4m3 {b:#x} = {x}");
            }
            let x = f8e5m2_to_f32(b);
            if x.is_finite() {
                assert_eq!(f32_to_f8e5m2(x), b, "e5m2 {b:#x} = {x}");
            }
        }
        assert_eq!(f8e4m3_to_f32(0x7E), 448.0);
        assert_eq!(f8e5m2_to_f32(0x7B), 57344.0);
    }

    #[test]
    fn fp8_ties_go_to_even() {
        // 17 lies halfway between 16 (mantissa 0) and 18 (mantissa 1).
        assert_eq!(f8e4m3_to_f32(f32_to_f8e4m3(17.0)), 16.0);
        assert_eq!(f8e4m3_to_f32(f32_to_f8e4m3(19.0)), 20.0);
        assert!(f8e4m3_to_f32(f32_to_f8e4m3(500.0)).is_nan());
    }

    #[test]
    fn bf16_matches_half_for_hard_values() {
        let hard = [
            0.0,
            -0.0,
            1.0,
            1.003_906_2,
            f32::MAX,
            f32::MIN_POSITIVE,
            f32::INFINITY,
            f32::NAN,
        ];
        let mut out = vec![0; hard.len() * 2];
        let over = narrow(&hard, DType::BF16, &mut out);
        assert_eq!(over, 1, "f32::MAX rounds up to infinity");
        for (v, b) in hard.iter().zip(out.as_chunks::<2>().0) {
            let want = bf16::from_f32(*v);
            let got = bf16::from_le_bytes(*b);
            assert!(
                want.to_bits() == got.to_bits() || (want.is_nan() && got.is_nan()),
                "{v}"
            );
        }
    }

    #[test]
    fn f16_counts_overflow() {
        let mut out = vec![0; 6];
        assert_eq!(
            narrow(&[65519.0, 65520.0, f32::INFINITY], DType::F16, &mut out),
            1
        );
    }
}
