//! The few messages of ONNX that are written here, in protobuf's wire format.
//!
//! Fields have the numbers of `onnx-ml.proto`. Whatever holds weights is written once, where it stays: a tensor's length is
//! known before its bytes, so nothing is nested by copying.
//!
//! Source: protobuf's encoding guide; onnx 1.23, `onnx/onnx-ml.proto`.

/// A message that is being written: fields one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Message(Vec<u8>);

/// How a field is laid out.
const VARINT: u64 = 0;
const LENGTH: u64 = 2;
const FIXED32: u64 = 5;

impl Message {
    fn varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push((n & 0x7F) as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    fn tag(&mut self, field: u64, layout: u64) {
        self.varint(field << 3 | layout);
    }

    /// A whole number.
    pub fn int(&mut self, field: u64, value: i64) {
        self.tag(field, VARINT);
        self.varint(value.cast_unsigned());
    }

    /// A number.
    pub fn float(&mut self, field: u64, value: f32) {
        self.tag(field, FIXED32);
        self.0.extend(value.to_le_bytes());
    }

    /// Bytes, or a text.
    pub fn bytes(&mut self, field: u64, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.begin(field, bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// A message within.
    pub fn message(&mut self, field: u64, message: &Self) {
        self.bytes(field, &message.0);
    }

    /// The begin of a message, text or field of bytes, of which so many bytes follow.
    pub fn begin(&mut self, field: u64, length: usize) {
        self.tag(field, LENGTH);
        self.varint(length as u64);
    }

    /// Fields of another one behind its own.
    pub fn append(&mut self, mut fields: Self) {
        self.0.append(&mut fields.0);
    }

    /// Its bytes so far.
    pub fn written(&self) -> &[u8] {
        &self.0
    }
}

/// Types of elements, by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// `tensor(float)`.
    Float = 1,
    /// `tensor(int64)`.
    Int = 7,
    /// `tensor(string)`.
    Text = 8,
    /// `tensor(double)`.
    Double = 11,
}

impl Element {
    /// Its word in ONNX and in docs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Int => "int64",
            Self::Text => "string",
            Self::Double => "double",
        }
    }
}

/// The elements of a tensor.
#[derive(Debug, Clone, Copy)]
pub(super) enum Elements<'a> {
    Floats(&'a [f32]),
    Doubles(&'a [f64]),
    Ints(&'a [i64]),
    Texts(&'a [String]),
}

impl Elements<'_> {
    fn element(&self) -> Element {
        match self {
            Self::Floats(_) => Element::Float,
            Self::Doubles(_) => Element::Double,
            Self::Ints(_) => Element::Int,
            Self::Texts(_) => Element::Text,
        }
    }

    /// Bytes of its raw data; none of texts, which have a field each.
    fn raw(&self) -> Option<usize> {
        match self {
            Self::Floats(x) => Some(4 * x.len()),
            Self::Doubles(x) => Some(8 * x.len()),
            Self::Ints(x) => Some(8 * x.len()),
            Self::Texts(_) => None,
        }
    }
}

impl Message {
    /// A `TensorProto` as a field of this message.
    pub fn tensor(&mut self, field: u64, name: &str, dims: &[usize], elements: Elements<'_>) {
        let mut head = Self::default();
        for dim in dims {
            head.int(1, *dim as i64);
        }
        head.int(2, elements.element() as i64);
        if !name.is_empty() {
            head.bytes(8, name);
        }
        if let Elements::Texts(texts) = elements {
            texts.iter().for_each(|text| head.bytes(6, text));
        }
        if let Some(raw) = elements.raw() {
            head.begin(9, raw);
        }
        self.begin(field, head.0.len() + elements.raw().unwrap_or(0));
        self.0.append(&mut head.0);
        self.0.reserve(elements.raw().unwrap_or(0));
        match elements {
            Elements::Floats(x) => self.0.extend(x.iter().flat_map(|x| x.to_le_bytes())),
            Elements::Doubles(x) => self.0.extend(x.iter().flat_map(|x| x.to_le_bytes())),
            Elements::Ints(x) => self.0.extend(x.iter().flat_map(|x| x.to_le_bytes())),
            Elements::Texts(_) => {}
        }
    }

    /// A `ValueInfoProto` of a tensor whose first length is the number of rows, as a field of this message.
    pub fn port(&mut self, field: u64, port: &super::Port) {
        let mut shape = Self::default();
        let mut rows = Self::default();
        rows.bytes(2, "N");
        shape.message(1, &rows);
        for dim in &port.dims {
            let mut one = Self::default();
            one.int(1, *dim as i64);
            shape.message(1, &one);
        }
        let mut tensor = Self::default();
        tensor.int(1, port.element as i64);
        tensor.message(2, &shape);
        let mut kind = Self::default();
        kind.message(1, &tensor);
        let mut info = Self::default();
        info.bytes(1, &port.name);
        info.message(2, &kind);
        info.bytes(3, &port.meaning);
        self.message(field, &info);
    }
}

/// The value of an attribute of a node.
#[derive(Debug, Clone, Copy)]
pub(super) enum Attribute<'a> {
    Float(f32),
    Int(i64),
    Text(&'a str),
    Ints(&'a [i64]),
    Texts(&'a [String]),
    Doubles(&'a [f64]),
}

impl Message {
    /// An `AttributeProto` as a field of this message.
    pub fn attribute(&mut self, field: u64, name: &str, value: Attribute<'_>) {
        let mut one = Self::default();
        one.bytes(1, name);
        let kind = match value {
            Attribute::Float(x) => {
                one.float(2, x);
                1
            }
            Attribute::Int(x) => {
                one.int(3, x);
                2
            }
            Attribute::Text(x) => {
                one.bytes(4, x);
                3
            }
            Attribute::Doubles(x) => {
                one.tensor(5, "", &[x.len()], Elements::Doubles(x));
                4
            }
            Attribute::Ints(x) => {
                x.iter().for_each(|x| one.int(8, *x));
                7
            }
            Attribute::Texts(x) => {
                x.iter().for_each(|x| one.bytes(9, x));
                8
            }
        };
        one.int(20, kind);
        self.message(field, &one);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of protobuf's own guide: 150 in field 1, "testing" in field 2.
    #[test]
    fn fields_are_laid_out_as_the_guide_has_them() {
        let mut m = Message::default();
        m.int(1, 150);
        m.bytes(2, "testing");
        assert_eq!(m.written(), b"\x08\x96\x01\x12\x07testing");
        let mut m = Message::default();
        // Below 0: ten bytes, as int64 has it. A field above 15: a tag of two.
        m.int(20, -2);
        assert_eq!(
            m.written(),
            b"\xA0\x01\xFE\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01"
        );
        let mut m = Message::default();
        m.float(2, 1.5);
        assert_eq!(m.written(), b"\x15\x00\x00\xC0\x3F");
    }

    /// dims [2], type 1, name "w", raw data of eight bytes.
    #[test]
    fn a_tensor_knows_its_length_before_its_bytes() {
        let mut m = Message::default();
        m.tensor(5, "w", &[2], Elements::Floats(&[1.0, -2.0]));
        let body = b"\x08\x02\x10\x01\x42\x01w\x4A\x08\x00\x00\x80\x3F\x00\x00\x00\xC0";
        assert_eq!(m.written()[..2], [0x2A, body.len() as u8]);
        assert_eq!(m.written()[2..], body[..]);
        let mut m = Message::default();
        m.tensor(5, "", &[1], Elements::Texts(&["ab".into()]));
        assert_eq!(m.written(), b"\x2A\x08\x08\x01\x10\x08\x32\x02ab");
    }
}
