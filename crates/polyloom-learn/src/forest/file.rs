//! The file of a forest: one safetensors file, described in docs/reference/forest-file.md.

use std::collections::BTreeMap;
use std::path::Path;

use polyloom_core::DType;
use polyloom_core::writer::{OutTensor, OutputFile, safetensors_bytes};
use serde::{Deserialize, Serialize};

use super::model::{Forest, Use};
use super::tree::{Node, Test, Tree};
use crate::error::Result;

/// What stands in the header as `format`.
pub const FORMAT: &str = "polyloom.forest/1";

/// In place of the column of a leaf.
pub(super) const LEAF: u32 = u32::MAX;

/// A column in the header.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ColumnLine {
    pub name: String,
    /// Bins of categories; none of numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bins: Option<usize>,
}

/// An ensemble in the header.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EnsembleLine {
    pub name: String,
    pub width: usize,
    pub trees: usize,
    pub uses: Vec<Use>,
}

/// Arrays of nodes, as the file has them.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    pub column: Vec<u32>,
    pub threshold: Vec<f32>,
    pub left: Vec<u32>,
    pub right: Vec<u32>,
    pub set: Vec<u32>,
    pub kind: Vec<u8>,
    pub gain: Vec<f32>,
}

impl Nodes {
    fn push(&mut self, node: Node) {
        let (column, test, missing_left, left, right, gain) = match node {
            Node::Leaf(leaf) => (LEAF, Test::AtMost(0.0), false, leaf, leaf, 0.0),
            Node::Split {
                column,
                test,
                missing_left,
                left,
                right,
                gain,
            } => (column, test, missing_left, left, right, gain),
        };
        let (threshold, set, kind) = match test {
            Test::AtMost(threshold) => (threshold, 0, 0),
            Test::OneOf(set) => (0.0, set, 1),
        };
        self.column.push(column);
        self.threshold.push(threshold);
        self.left.push(left);
        self.right.push(right);
        self.set.push(set);
        self.kind.push(kind | u8::from(missing_left) << 1);
        self.gain.push(gain);
    }
}

impl Forest {
    /// Writes the file, all at once.
    ///
    /// # Errors
    /// A file that is there already (without `force`), a full disk.
    pub fn save(&self, file: &Path, force: bool, sync: bool) -> Result<()> {
        let bytes = self.bytes();
        let mut out = OutputFile::create(file, bytes.len() as u64, force, sync)?;
        out.write(&bytes)?;
        Ok(out.commit()?)
    }

    /// The bytes of its file.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let trees = || self.ensembles.iter().flat_map(|e| &e.trees);
        let mut nodes = Nodes::default();
        trees()
            .flat_map(|t| &t.nodes)
            .for_each(|node| nodes.push(*node));
        let counts = |of: &dyn Fn(&Tree) -> usize| trees().map(|t| of(t) as u32).collect();
        let counts: [Vec<u32>; 2] = [counts(&|t| t.nodes.len()), counts(&|t| t.sets.len())];
        let leaves: Vec<f32> = trees().flat_map(|t| &t.values).copied().collect();
        let sets: Vec<u64> = trees()
            .flat_map(|t| t.sets.iter().flatten())
            .copied()
            .collect();
        let mut stored = vec![
            array("nodes.column", DType::U32, &nodes.column, u32::to_le_bytes),
            array(
                "nodes.threshold",
                DType::F32,
                &nodes.threshold,
                f32::to_le_bytes,
            ),
            array("nodes.left", DType::U32, &nodes.left, u32::to_le_bytes),
            array("nodes.right", DType::U32, &nodes.right, u32::to_le_bytes),
            array("nodes.set", DType::U32, &nodes.set, u32::to_le_bytes),
            array("nodes.kind", DType::U8, &nodes.kind, u8::to_le_bytes),
            array("nodes.gain", DType::F32, &nodes.gain, f32::to_le_bytes),
            array("trees.nodes", DType::U32, &counts[0], u32::to_le_bytes),
            array("trees.sets", DType::U32, &counts[1], u32::to_le_bytes),
            array("leaves", DType::F32, &leaves, f32::to_le_bytes),
            array("sets", DType::U64, &sets, u64::to_le_bytes),
        ];
        for (i, feature) in self.features.iter().enumerate() {
            if let Some(categories) = &feature.categories {
                let name = format!("categories.{i}");
                stored.push(array(
                    &name,
                    DType::U16,
                    &categories.bin_of,
                    u16::to_le_bytes,
                ));
            }
        }
        safetensors_bytes(&stored, &self.header())
    }

    fn header(&self) -> BTreeMap<String, String> {
        let columns: Vec<ColumnLine> = self
            .features
            .iter()
            .map(|f| ColumnLine {
                name: f.name.clone(),
                bins: f.categories.as_ref().map(|c| c.bins),
            })
            .collect();
        let ensembles: Vec<EnsembleLine> = self
            .ensembles
            .iter()
            .map(|e| EnsembleLine {
                name: e.name.clone(),
                width: e.width,
                trees: e.trees.len(),
                uses: e.uses.clone(),
            })
            .collect();
        let mut said = BTreeMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("polyloom".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("method".to_owned(), text(&self.method)),
            ("columns".to_owned(), text(&columns)),
            ("targets".to_owned(), text(&self.outputs)),
            ("ensembles".to_owned(), text(&ensembles)),
        ]);
        if let Some(sides) = &self.sides {
            said.insert("sides".to_owned(), text(sides));
        }
        said
    }
}

fn text<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn array<T: Copy, const N: usize>(
    name: &str,
    dtype: DType,
    values: &[T],
    bytes: impl Fn(T) -> [u8; N],
) -> (OutTensor, Vec<u8>) {
    let tensor = OutTensor {
        name: name.to_owned(),
        dtype,
        shape: vec![values.len()],
    };
    (tensor, values.iter().flat_map(|v| bytes(*v)).collect())
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
