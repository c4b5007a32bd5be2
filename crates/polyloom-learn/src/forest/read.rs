//! Reading the file of a forest; nothing in it is believed.

use std::path::Path;

use polyloom_core::{Checkpoint, DType};
use serde::de::DeserializeOwned;

use super::bins::{CATEGORY_BINS, Categories, UNSEEN};
use super::data::MAX_CLASSES;
use super::file::{ColumnLine, EnsembleLine, FORMAT, LEAF, Nodes};
use super::fit::Method;
use super::model::{Ensemble, Feature, Forest, Output, Sides, Use};
use super::tree::{Node, SET, Test, Tree};
use crate::error::{Error, Result};

const AGAIN: &str = "the file is damaged or was changed; train the forest again";

impl Forest {
    /// Reads a file.
    ///
    /// # Errors
    /// A file that is no forest or of a later format, arrays that make no trees: children that do not come after their
    /// parents, numbers of columns, leaves, sets or targets that are not there, values that are not finite.
    pub fn open(file: &Path) -> Result<Self> {
        let read = Stored {
            checkpoint: Checkpoint::open(file)?,
            file,
        };
        match read.word("format") {
            Some(FORMAT) => {}
            Some(other) if other.starts_with("polyloom.forest/") => {
                let what = format!("is of the format `{other}`; this program reads `{FORMAT}`");
                return Err(Error::file(file, what).hint("a newer program wrote it"));
            }
            _ => return Err(Error::file(file, "is no forest")),
        }
        let method: Method = read.parsed("method")?;
        let features = read.features()?;
        let outputs = read.outputs()?;
        let ensembles = read.ensembles(&features, outputs.iter().map(Output::columns).sum())?;
        let sides = match read.word("sides") {
            Some(_) => Some(read.sides(outputs.len())?),
            None => None,
        };
        Ok(Self {
            method,
            features,
            outputs,
            ensembles,
            sides,
        })
    }
}

/// A file that is being read.
struct Stored<'a> {
    checkpoint: Checkpoint,
    file: &'a Path,
}

/// What a tree may refer to.
struct Bounds<'a> {
    features: &'a [Feature],
    nodes: usize,
    sets: usize,
}

impl Stored<'_> {
    fn wrong(&self, what: impl Into<String>) -> Error {
        Error::file(self.file, what).hint(AGAIN)
    }

    fn word(&self, key: &str) -> Option<&str> {
        self.checkpoint.metadata().get(key).map(String::as_str)
    }

    fn parsed<T: DeserializeOwned>(&self, key: &str) -> Result<T> {
        let text = self
            .word(key)
            .ok_or_else(|| self.wrong(format!("lacks `{key}` in its header")))?;
        serde_json::from_str(text)
            .map_err(|e| self.wrong(format!("has `{key}` that is not understood: {e}")))
    }

    /// An array of one axis.
    fn array<T, const N: usize>(
        &self,
        name: &str,
        dtype: DType,
        value: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>> {
        let Some(stored) = self.checkpoint.get(name) else {
            return Err(self.wrong(format!("lacks the tensor `{name}`")));
        };
        if stored.dtype != dtype || stored.shape.len() != 1 {
            return Err(self.wrong(format!(
                "tensor `{name}` is {} of shape {:?}; it should be {dtype} with one axis",
                stored.dtype, stored.shape
            )));
        }
        let mut bytes = vec![0; stored.elements() * N];
        let range = 0..bytes.len() as u64;
        self.checkpoint.read_bytes(stored, range, &mut bytes)?;
        Ok(bytes.as_chunks::<N>().0.iter().map(|b| value(*b)).collect())
    }

    fn floats(&self, name: &str) -> Result<Vec<f32>> {
        self.array(name, DType::F32, f32::from_le_bytes)
    }

    fn whole(&self, name: &str) -> Result<Vec<u32>> {
        self.array(name, DType::U32, u32::from_le_bytes)
    }

    fn features(&self) -> Result<Vec<Feature>> {
        let lines: Vec<ColumnLine> = self.parsed("columns")?;
        let feature = |(i, line): (usize, ColumnLine)| -> Result<Feature> {
            let categories = match line.bins {
                None => None,
                Some(bins) => {
                    let name = format!("categories.{i}");
                    let bin_of = self.array(&name, DType::U16, u16::from_le_bytes)?;
                    let out = |b: &u16| *b != UNSEEN && *b as usize >= bins;
                    if bins > CATEGORY_BINS || bin_of.iter().any(out) {
                        return Err(self.wrong(format!("tensor `{name}` has bins out of range")));
                    }
                    Some(Categories { bin_of, bins })
                }
            };
            Ok(Feature {
                name: line.name,
                categories,
            })
        };
        lines.into_iter().enumerate().map(feature).collect()
    }

    fn outputs(&self) -> Result<Vec<Output>> {
        let outputs: Vec<Output> = self.parsed("targets")?;
        for output in &outputs {
            let fits = output.classes <= MAX_CLASSES
                && output.start.len() == output.columns()
                && output.start.iter().all(|s| s.is_finite())
                && output.scale.is_finite();
            if !fits {
                let name = &output.name;
                return Err(self.wrong(format!("has a target `{name}` that is out of range")));
            }
        }
        match outputs.is_empty() {
            true => Err(self.wrong("has no targets")),
            false => Ok(outputs),
        }
    }

    fn sides(&self, tasks: usize) -> Result<Sides> {
        let sides: Sides = self.parsed("sides")?;
        let fits = |x: &[f64]| x.len() == tasks && x.iter().all(|x| x.is_finite());
        match fits(&sides.theta) && fits(&sides.sigma) {
            true => Ok(sides),
            false => Err(self.wrong(format!("has `sides` that are not those of {tasks} tasks"))),
        }
    }

    fn ensembles(&self, features: &[Feature], columns: usize) -> Result<Vec<Ensemble>> {
        let lines: Vec<EnsembleLine> = self.parsed("ensembles")?;
        for line in &lines {
            let inside = |at: usize, n: usize, all: usize| {
                n > 0 && at.checked_add(n).is_some_and(|end| end <= all)
            };
            let fits = |to: &Use| {
                inside(to.column, to.width, columns)
                    && inside(to.output, to.width, line.width)
                    && to.factor.is_finite()
            };
            // No ensemble has more outputs than there are scores: nothing larger is ever allocated.
            if !(1..=columns).contains(&line.width) || !line.uses.iter().all(fits) {
                let name = &line.name;
                return Err(self.wrong(format!("has an ensemble `{name}` that is out of range")));
            }
        }
        let widths = lines.iter().map(|l| (l.trees, l.width));
        let mut trees = self.trees(features, widths)?.into_iter();
        let ensemble = |line: EnsembleLine| Ensemble {
            trees: trees.by_ref().take(line.trees).collect(),
            name: line.name,
            width: line.width,
            uses: line.uses,
        };
        Ok(lines.into_iter().map(ensemble).collect())
    }

    /// All trees; `widths` says how many there are of each number of outputs.
    fn trees(
        &self,
        features: &[Feature],
        widths: impl Iterator<Item = (usize, usize)> + Clone,
    ) -> Result<Vec<Tree>> {
        let nodes = Nodes {
            column: self.whole("nodes.column")?,
            threshold: self.floats("nodes.threshold")?,
            left: self.whole("nodes.left")?,
            right: self.whole("nodes.right")?,
            set: self.whole("nodes.set")?,
            kind: self.array("nodes.kind", DType::U8, u8::from_le_bytes)?,
            gain: self.floats("nodes.gain")?,
        };
        let n = nodes.column.len();
        let lengths = [
            nodes.threshold.len(),
            nodes.left.len(),
            nodes.right.len(),
            nodes.set.len(),
            nodes.kind.len(),
            nodes.gain.len(),
        ];
        if lengths.iter().any(|l| *l != n) {
            return Err(self.wrong("has arrays of nodes that are not of one length"));
        }
        let (counts, sets) = (self.whole("trees.nodes")?, self.whole("trees.sets")?);
        let told = widths.clone().try_fold(0usize, |s, w| s.checked_add(w.0));
        if told != Some(counts.len()) || counts.len() != sets.len() {
            return Err(self.wrong(format!(
                "has {} trees, its header says otherwise",
                counts.len()
            )));
        }
        let words = self.array("sets", DType::U64, u64::from_le_bytes)?;
        let leaves = self.floats("leaves")?;
        if leaves.iter().any(|v| !v.is_finite()) {
            return Err(self.wrong("has a leaf that is not finite"));
        }
        let mut rest = Rest {
            nodes: &nodes,
            at: 0,
            words: words.as_chunks::<SET>().0,
            leaves: &leaves,
        };
        let each = widths.flat_map(|(trees, width)| std::iter::repeat_n(width, trees));
        let mut made = Vec::new();
        for (i, (width, (nodes, sets))) in each.zip(counts.iter().zip(&sets)).enumerate() {
            let bounds = Bounds {
                features,
                nodes: *nodes as usize,
                sets: *sets as usize,
            };
            let tree = rest.tree(width, &bounds);
            made.push(tree.map_err(|what| self.wrong(format!("tree {i} {what}")))?);
        }
        let whole = rest.at == n && rest.words.is_empty() && rest.leaves.is_empty();
        match whole && words.len().is_multiple_of(SET) {
            true => Ok(made),
            false => Err(self.wrong("has nodes, sets or leaves that no tree counts")),
        }
    }
}

/// What of the arrays is not read yet.
struct Rest<'a> {
    nodes: &'a Nodes,
    at: usize,
    words: &'a [[u64; SET]],
    leaves: &'a [f32],
}

impl Rest<'_> {
    fn tree(&mut self, width: usize, bounds: &Bounds<'_>) -> Result<Tree, &'static str> {
        let end = self.at.checked_add(bounds.nodes);
        let end = end
            .filter(|end| *end <= self.nodes.column.len() && bounds.nodes > 0)
            .ok_or("has another number of nodes than the file")?;
        let (sets, words) = self
            .words
            .split_at_checked(bounds.sets)
            .ok_or("has more sets than the file")?;
        let (mut nodes, mut leaves) = (Vec::with_capacity(bounds.nodes), 0u32);
        for (number, i) in (self.at..end).enumerate() {
            let node = self.node(number, i, bounds)?;
            if let Node::Leaf(leaf) = node {
                if leaf != leaves {
                    return Err("has leaves that are not numbered in order");
                }
                leaves += 1;
            }
            nodes.push(node);
        }
        let (values, rest) = self
            .leaves
            .split_at_checked(leaves as usize * width)
            .ok_or("has more leaves than the file")?;
        (self.at, self.words, self.leaves) = (end, words, rest);
        Ok(Tree {
            nodes,
            values: values.to_vec(),
            sets: sets.to_vec(),
        })
    }

    fn node(&self, number: usize, i: usize, bounds: &Bounds<'_>) -> Result<Node, &'static str> {
        let (nodes, column) = (self.nodes, self.nodes.column[i]);
        let (left, right, kind) = (nodes.left[i], nodes.right[i], nodes.kind[i]);
        if column == LEAF {
            return Ok(Node::Leaf(left));
        }
        let after = |child: u32| child as usize > number && (child as usize) < bounds.nodes;
        if !after(left) || !after(right) {
            return Err("has a node whose children do not come after it");
        }
        let feature = bounds.features.get(column as usize);
        let feature = feature.ok_or("asks for a column that is not there")?;
        let test = match (kind & 1, &feature.categories) {
            (0, None) => Test::AtMost(nodes.threshold[i]),
            (1, Some(_)) => Test::OneOf(nodes.set[i]),
            _ => return Err("asks a column for what it does not have"),
        };
        match test {
            Test::AtMost(t) if t.is_nan() => return Err("has a threshold that is no number"),
            Test::OneOf(set) if set as usize >= bounds.sets => {
                return Err("asks for a set that is not there");
            }
            _ if !nodes.gain[i].is_finite() || kind > 3 => return Err("has a node out of range"),
            _ => {}
        }
        Ok(Node::Split {
            column,
            test,
            missing_left: kind & 2 > 0,
            left,
            right,
            gain: nodes.gain[i],
        })
    }
}
