//! Models of tables as one ONNX file that reads raw cells: what `predict` does to a row, from its cells to the answers of all
//! heads, as operators of `ai.onnx` 17 and `ai.onnx.ml` 3.
//!
//! `prepare.rs` writes the preparation of `table.json`; a network is what a pass over it leaves behind (`trace.rs`), each
//! operation in the words of ONNX (`lower.rs`), so that architectures know nothing of it; trees are one ensemble (`forest.rs`);
//! `head.rs` is heads with what was calibrated. `proto.rs` and `graph.rs` write. docs/reference/export.md says what a user meets.

mod forest;
mod graph;
mod head;
mod lower;
mod prepare;
mod proto;
mod search;
mod trace;

use std::path::Path;

use polyloom::MergeError;
use polyloom_core::writer::OutputFile;

use crate::calibrate::Level;
use crate::error::Result;
use crate::models::Source;
use crate::models::open::Trunk;
use crate::table::Preparation;
use crate::tasks::Head;
use graph::{Graph, ML_DOMAIN};
pub use proto::Element;
use proto::Message;

/// Version of the file format: that of ONNX 1.12.
const IR: i64 = 8;
/// Version of the operators of `ai.onnx`.
pub const OPSET: i64 = 17;
/// Version of those of `ai.onnx.ml`.
pub const ML_OPSET: i64 = 3;

/// Bytes at most: protobuf reads no longer message.
const MOST: usize = i32::MAX as usize;

/// An input or output of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub element: Element,
    /// Its lengths behind the number of rows.
    pub dims: Vec<usize>,
    /// What it holds.
    pub meaning: String,
}

impl Port {
    /// Type and shape, as in `string [N, 1]`.
    #[must_use]
    pub fn shape(&self) -> String {
        let dims: String = self.dims.iter().map(|d| format!(", {d}")).collect();
        format!("{} [N{dims}]", self.element.word())
    }
}

/// A model as it is written.
pub struct Parts<'a> {
    /// Its architecture.
    pub trunk: &'a Trunk,
    /// Its weights; a forest has its own.
    pub weights: &'a dyn Source,
    /// How its rows are prepared.
    pub preparation: &'a Preparation,
    /// Its heads, in the order of the outputs.
    pub heads: &'a [Head],
    /// Level of the intervals that are given too; `None` for none.
    pub interval: Option<Level>,
}

/// An ONNX file that is not on disk yet.
#[derive(Debug)]
pub struct Onnx {
    /// A column each: `[N, 1]`.
    pub inputs: Vec<Port>,
    /// Of every head its answer, of classes their probabilities, and where intervals are asked for their ends or sets.
    pub outputs: Vec<Port>,
    parts: [Message; 3],
}

impl Onnx {
    /// The bytes of the file, in parts.
    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().map(Message::written)
    }

    /// Bytes of the file.
    #[must_use]
    pub fn size(&self) -> usize {
        self.parts().map(<[u8]>::len).sum()
    }

    /// Writes the file, all at once.
    ///
    /// # Errors
    /// A file that is there already (without `force`), a full disk.
    pub fn save(&self, file: &Path, force: bool, sync: bool) -> Result<()> {
        let mut out = OutputFile::create(file, self.size() as u64, force, sync)?;
        for part in self.parts() {
            out.write(part)?;
        }
        Ok(out.commit()?)
    }
}

/// Says why a model cannot be exported.
fn refused(why: impl std::fmt::Display) -> MergeError {
    MergeError::plan("no-export", format!("cannot be written as ONNX: {why}"))
}

/// A model of tables as an ONNX file. The same model gives the same bytes.
///
/// Numbers are prepared in `f64`, as `predict` does it, and given as `double`; networks compute in `f32`, trees and calibration in
/// `f64`. Where groups have goals of their own, every goal is computed for every row, and that of the row's group is chosen: the
/// cost of a row is that of all groups.
///
/// Peers: skl2onnx and onnxmltools, whose inputs are `[N, 1]` a column, words as `string`, and whose classifiers give the class as
/// `string [N]` and probabilities as `float [N, classes]` (`zipmap=False`).
///
/// # Errors
/// A model of something else than tables; what a graph for any number of rows cannot say (`attention = "row_col"` of
/// `multitab`, `history` of `dtrn`); intervals of heads that have none; columns without a name or with that of an output; more than 2 GiB.
pub fn onnx(parts: &Parts<'_>) -> Result<Onnx> {
    let Parts {
        trunk,
        weights,
        preparation,
        heads,
        interval,
    } = *parts;
    let groups = preparation.groups().map(|g| g.values.len());
    let inputs = prepare::inputs(preparation)?;
    let targets = targets(heads);
    let wanted = heads
        .iter()
        .zip(&targets)
        .map(|(h, t)| head::outputs(h, t, interval));
    let wanted = wanted.collect::<Result<Vec<_>>>()?;
    let ports = wanted.iter().flat_map(|o| {
        std::iter::once(&o.answer)
            .chain(&o.probabilities)
            .chain(&o.interval)
    });
    let outputs: Vec<Port> = ports.cloned().collect();
    distinct(&inputs, &outputs)?;
    let mut graph = Graph::new(inputs, outputs);
    let rows = prepare::rows(&mut graph, preparation);
    let (numbers, categories) = (preparation.numeric(), preparation.categories());
    let fits = |has: (usize, &[usize])| match has == (numbers, &categories[..]) {
        true => Ok(()),
        false => Err(refused("its rows are prepared for another model")),
    };
    let (features, width) = match trunk {
        Trunk::Table(model) => {
            fits((model.config.numeric, &model.config.categories[..]))?;
            if !model.config.history.is_empty() {
                let what = "rows see those of their session before them (`history`), and a graph answers each row alone";
                return Err(refused(what)
                    .hint("train again without `session` and `history` in `[table]`")
                    .into());
            }
            let trace = trace::trace(model, weights)?;
            let numbers = rows.numbers.as_deref();
            let features = lower::network(&mut graph, &trace, numbers, &rows.codes)?;
            (features, model.width())
        }
        Trunk::Forest(model) => {
            fits((model.config.numbers.len(), &model.config.categories[..]))?;
            let features = forest::forest(&mut graph, model, &rows)?;
            (features, model.config.width)
        }
        _ => {
            return Err(refused("it is no model of tables, and only those are")
                .hint("models of texts and pictures: `optimum-cli export onnx` of Hugging Face writes the trunk")
                .into());
        }
    };
    let each = groups.unwrap_or(1).max(1);
    let group = rows
        .group
        .as_deref()
        .map(|place| head::Group { place, count: each });
    for (own, to) in heads.iter().zip(&wanted) {
        let goals = features.chunks_exact(each).nth(own.goal);
        let fits = own.groups.len() == groups.unwrap_or(0) && own.inputs() == width;
        let Some(goals) = goals.filter(|_| fits) else {
            let what = format!(
                "head `{}` is of a goal, groups or a width that the model does not have",
                own.task
            );
            return Err(refused(what).into());
        };
        head::head(&mut graph, own, goals, group.as_ref(), to)?;
    }
    let about = format!("polyloom {}", architecture(trunk));
    finish(graph, &about, heads, &wanted)
}

/// The word of an architecture.
fn architecture(trunk: &Trunk) -> &str {
    match trunk {
        Trunk::Table(model) => &model.config.architecture,
        Trunk::Forest(model) => &model.config.architecture,
        _ => "",
    }
}

/// Names of heads in outputs: as in predictions; where two are one, their whole names.
fn targets(heads: &[Head]) -> Vec<&str> {
    let mut names: Vec<&str> = heads.iter().map(|h| h.target(heads.len() > 1)).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    if sorted.windows(2).any(|w| w[0] == w[1]) {
        names = heads.iter().map(|h| &*h.task).collect();
    }
    names
}

/// Names of inputs and outputs, which a graph tells apart by name.
fn distinct(inputs: &[Port], outputs: &[Port]) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    for port in inputs.iter().chain(outputs) {
        if !seen.insert(&port.name) {
            let what = format!(
                "`{}` is the name of a column and of an output, or of two",
                port.name
            );
            return Err(refused(what)
                .hint("give the column another name, and train again")
                .into());
        }
    }
    Ok(())
}

/// The file of a graph.
fn finish(graph: Graph, about: &str, heads: &[Head], wanted: &[head::Outputs]) -> Result<Onnx> {
    let Graph {
        nodes,
        weights,
        inputs,
        outputs,
        ..
    } = graph;
    let mut ports = Message::default();
    ports.bytes(2, "polyloom");
    inputs.iter().for_each(|port| ports.port(11, port));
    outputs.iter().for_each(|port| ports.port(12, port));
    let mut model = Message::default();
    model.int(1, IR);
    for (domain, version) in [("", OPSET), (ML_DOMAIN, ML_OPSET)] {
        let mut set = Message::default();
        set.bytes(1, domain);
        set.int(2, version);
        model.message(8, &set);
    }
    model.bytes(2, "polyloom");
    model.bytes(3, env!("CARGO_PKG_VERSION"));
    model.bytes(6, about);
    for (own, to) in heads.iter().zip(wanted) {
        let Some(port) = &to.probabilities else {
            continue;
        };
        let mut said = Message::default();
        said.bytes(1, format!("classes.{}", port.name));
        said.bytes(2, serde_json::json!(head::classes(own)).to_string());
        model.message(14, &said);
    }
    let lengths = [&ports, &nodes, &weights].map(|m| m.written().len());
    model.begin(7, lengths.iter().sum());
    // What stands before the nodes of the graph is a part of its own: the graph's first fields follow it.
    model.append(ports);
    let made = Onnx {
        inputs,
        outputs,
        parts: [model, nodes, weights],
    };
    if made.size() > MOST {
        let what = format!(
            "it takes {} bytes, and readers of protobuf take 2 GiB",
            made.size()
        );
        return Err(refused(what)
            .hint("train with a smaller embed_dim, or fewer trees")
            .into());
    }
    Ok(made)
}
