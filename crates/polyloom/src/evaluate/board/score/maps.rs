//! A value per pixel, as files hold it.

use serde_json::Value;

use super::answers::number;
use crate::tasks::data::table::Cell;

/// What the pixels of a map are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pixels {
    /// A class each.
    Classes,
    /// A depth each.
    Depth,
    /// Three parts of a normal each.
    Normals,
    /// Edge or not, or how likely.
    Edges,
}

impl Pixels {
    /// What a metric reads.
    pub(crate) fn of(metric: &str) -> Option<Self> {
        Some(match metric {
            "miou" | "pixel_acc" => Self::Classes,
            "abs_err" | "rel_err" | "rel_l2" => Self::Depth,
            "edge_f1" => Self::Edges,
            angle if angle.starts_with("normal_angle") => Self::Normals,
            _ => return None,
        })
    }

    /// Values a pixel, as files and the board have them: a class is one.
    #[must_use]
    pub fn values(self) -> usize {
        if self == Self::Normals { 3 } else { 1 }
    }
}

/// A map as it stands in a file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Map {
    /// Numbers in their own unit.
    Numbers(Vec<f32>),
    /// Raw bytes, row by row.
    Bytes(Vec<u8>),
}

impl Map {
    /// A map in a cell of a table: bytes, or what [`Self::of_json`] reads. None for an empty cell.
    pub fn of_cell(cell: Cell<'_>) -> Result<Option<Self>, String> {
        match cell {
            Cell::Bytes(bytes) => Ok(Some(Self::Bytes(bytes.to_vec()))),
            cell if cell.is_empty() => Ok(None),
            cell => Self::of_json(&cell.to_json()).map(Some),
        }
    }

    /// A list of numbers, or lists of them, row by row; or bytes as hexadecimal text.
    pub fn of_json(value: &Value) -> Result<Self, String> {
        if let Value::String(text) = value {
            return match text.strip_prefix(HEX) {
                Some(digits) => bytes(digits).map(Self::Bytes),
                None => Err(format!(
                    "`{}` is no map: a list of numbers, a cell of raw bytes, or `{HEX}` and hexadecimal digits",
                    text.chars().take(20).collect::<String>()
                )),
            };
        }
        let mut numbers = Vec::new();
        collect(value, &mut numbers)?;
        Ok(Self::Numbers(numbers))
    }

    /// The values, in their own unit. Raw bytes are what generated scenes hold: u8 for classes and edges, u16 in little
    /// endian for thousandths of a depth, i8 for 127ths of a normal; or f32 in little endian for any but classes. `pixels`
    /// tells them apart where it is known.
    pub fn values(&self, kind: Pixels, pixels: Option<usize>) -> Result<Vec<f32>, String> {
        let bytes = match self {
            Self::Numbers(list) => return Ok(list.clone()),
            Self::Bytes(bytes) => bytes,
        };
        let small = if kind == Pixels::Depth { 2 } else { 1 };
        let wide =
            pixels.is_some_and(|n| bytes.len() == 4 * kind.values() * n) && kind != Pixels::Classes;
        if wide {
            let (words, _) = bytes.as_chunks::<4>();
            return Ok(words.iter().map(|w| f32::from_le_bytes(*w)).collect());
        }
        if bytes.len() % (small * kind.values()) != 0 {
            return Err(format!("{} bytes are no map of this kind", bytes.len()));
        }
        Ok(match kind {
            Pixels::Depth => {
                let (words, _) = bytes.as_chunks::<2>();
                let depth = |w: &[u8; 2]| f32::from(u16::from_le_bytes(*w)) / 1000.0;
                words.iter().map(depth).collect()
            }
            Pixels::Normals => bytes
                .iter()
                .map(|b| f32::from(b.cast_signed()) / 127.0)
                .collect(),
            _ => bytes.iter().map(|b| f32::from(*b)).collect(),
        })
    }
}

/// What bytes in a text cell begin with.
const HEX: &str = "hex:";

/// Raw bytes as text that predictions of maps are read from: `hex:` and two digits a byte.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(HEX.len() + 2 * bytes.len());
    text.push_str(HEX);
    for b in bytes {
        text.push(char::from(DIGITS[usize::from(b >> 4)]));
        text.push(char::from(DIGITS[usize::from(b & 15)]));
    }
    text
}

fn bytes(digits: &str) -> Result<Vec<u8>, String> {
    let digit = |c: &u8| {
        char::from(*c)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let both = |[a, b]: &[u8; 2]| Some(digit(a)? << 4 | digit(b)?);
    let read: Option<Vec<u8>> = pairs.iter().map(both).collect();
    read.filter(|_| rest.is_empty())
        .ok_or_else(|| "the bytes of a map are no hexadecimal digits".into())
}

fn collect(value: &Value, into: &mut Vec<f32>) -> Result<(), String> {
    match value {
        Value::Array(list) => list.iter().try_for_each(|v| collect(v, into)),
        other => {
            let x =
                number(other, true).ok_or_else(|| format!("`{other}` in a map is no number"))?;
            into.push(x as f32);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_form_of_a_map() {
        let read = |v: &Value, kind, n| Map::of_json(v).and_then(|m| m.values(kind, n));
        assert_eq!(
            read(&json!([[1, 2], [3, 4.5]]), Pixels::Depth, None).unwrap(),
            [1.0, 2.0, 3.0, 4.5]
        );
        let text = hex(&[1, 255, 0x10, 0x27]);
        assert_eq!(text, "hex:01ff1027");
        let text = json!(text);
        assert_eq!(
            read(&text, Pixels::Classes, None).unwrap(),
            [1.0, 255.0, 16.0, 39.0]
        );
        assert_eq!(read(&text, Pixels::Depth, Some(2)).unwrap(), [65.281, 10.0]);
        let normals = read(&json!(hex(&[127, 0, 129])), Pixels::Normals, None).unwrap();
        assert_eq!(normals, [1.0, 0.0, -1.0]);
        let wide = json!(hex(&1.5f32.to_le_bytes()));
        assert_eq!(read(&wide, Pixels::Edges, Some(1)).unwrap(), [1.5]);
        for bad in [
            json!("x"),
            json!("hex:0"),
            json!("hex:zz"),
            json!([1, "x"]),
            json!({}),
        ] {
            assert!(Map::of_json(&bad).is_err(), "{bad}");
        }
        assert!(read(&json!("hex:00"), Pixels::Depth, None).is_err());
        assert_eq!(Map::of_cell(Cell::Null), Ok(None));
    }
}
