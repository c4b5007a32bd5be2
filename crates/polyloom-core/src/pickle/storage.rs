//! PyTorch's storage and element types.

use crate::dtype::DType;

/// What a storage holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    /// Numbers that can be read.
    Plain(DType),
    /// Bytes whose type the tensor names.
    Untyped,
    /// Numbers that cannot be read, as PyTorch calls them.
    Refused(&'static str),
}

impl Element {
    /// Bytes of one element, where elements can be read.
    pub(super) fn size(self) -> Option<u64> {
        match self {
            Self::Plain(dtype) => Some(dtype.block().1 as u64),
            Self::Untyped => Some(1),
            Self::Refused(_) => None,
        }
    }
}

/// The type behind a name of module `torch` or `torch.storage`: a storage class or a dtype.
pub(super) fn element(name: &str) -> Option<Element> {
    use Element::{Plain, Refused};
    Some(match name {
        "DoubleStorage" | "float64" | "double" => Plain(DType::F64),
        "FloatStorage" | "float32" | "float" => Plain(DType::F32),
        "HalfStorage" | "float16" | "half" => Plain(DType::F16),
        "BFloat16Storage" | "bfloat16" => Plain(DType::BF16),
        "LongStorage" | "int64" | "long" => Plain(DType::I64),
        "IntStorage" | "int32" | "int" => Plain(DType::I32),
        "ShortStorage" | "int16" | "short" => Plain(DType::I16),
        "CharStorage" | "int8" => Plain(DType::I8),
        "ByteStorage" | "uint8" => Plain(DType::U8),
        "BoolStorage" | "bool" => Plain(DType::Bool),
        "uint16" => Plain(DType::U16),
        "uint32" => Plain(DType::U32),
        "uint64" => Plain(DType::U64),
        "float8_e4m3fn" => Plain(DType::F8E4M3),
        "float8_e5m2" => Plain(DType::F8E5M2),
        "UntypedStorage" => Element::Untyped,
        "ComplexDoubleStorage" | "complex128" | "cdouble" => Refused("complex128"),
        "ComplexFloatStorage" | "complex64" | "cfloat" => Refused("complex64"),
        "complex32" | "chalf" => Refused("complex32"),
        "QInt8Storage" | "qint8" => Refused("qint8"),
        "QUInt8Storage" | "quint8" => Refused("quint8"),
        "QInt32Storage" | "qint32" => Refused("qint32"),
        "QUInt4x2Storage" | "quint4x2" => Refused("quint4x2"),
        "QUInt2x4Storage" | "quint2x4" => Refused("quint2x4"),
        "float8_e4m3fnuz" => Refused("float8_e4m3fnuz"),
        "float8_e5m2fnuz" => Refused("float8_e5m2fnuz"),
        "float8_e8m0fnu" => Refused("float8_e8m0fnu"),
        "float4_e2m1fn_x2" => Refused("float4_e2m1fn_x2"),
        _ => return None,
    })
}
