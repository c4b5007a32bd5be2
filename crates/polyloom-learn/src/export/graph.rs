//! A graph that is being written: nodes with their outputs by name, weights, inputs and outputs.

use std::collections::{HashMap, HashSet};

use super::Port;
use super::proto::{Attribute, Element, Elements, Message};
use crate::engine::{Tensor, slice};
use crate::error::{In, Result};

/// Operators of the second domain; all others are of `ai.onnx`.
const ML: [&str; 2] = ["LabelEncoder", "TreeEnsembleRegressor"];

/// Name of the second domain.
pub(super) const ML_DOMAIN: &str = "ai.onnx.ml";

/// Elements of a constant up to which equal ones are kept once.
const SMALL: usize = 8;

/// Nodes and weights so far. A value is known by its name.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub nodes: Message,
    pub weights: Message,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    names: HashSet<String>,
    count: HashMap<String, usize>,
    small: HashMap<String, String>,
}

impl Graph {
    /// Of inputs and outputs, whose names nothing else gets.
    pub fn new(inputs: Vec<Port>, outputs: Vec<Port>) -> Self {
        let ports = inputs.iter().chain(&outputs);
        Self {
            names: ports.map(|p| p.name.clone()).collect(),
            inputs,
            outputs,
            ..Self::default()
        }
    }

    /// A name that nothing has yet: the stem, or that with a number.
    fn free(&mut self, stem: &str) -> String {
        let mut name = stem.to_owned();
        let count = self.count.entry(stem.to_owned()).or_default();
        while name.is_empty() || !self.names.insert(name.clone()) {
            name = format!("{stem}_{count}");
            *count += 1;
        }
        name
    }

    /// A node of one output; returns the output's name.
    pub fn node(
        &mut self,
        op: &str,
        inputs: &[&str],
        attributes: &[(&str, Attribute<'_>)],
    ) -> String {
        let output = self.free(op);
        self.write(op, inputs, std::slice::from_ref(&output), attributes);
        output
    }

    /// A node without attributes.
    pub fn call(&mut self, op: &str, inputs: &[&str]) -> String {
        self.node(op, inputs, &[])
    }

    /// A value under the name of an output of the graph.
    pub fn give(&mut self, value: &str, output: &str) {
        self.write("Identity", &[value], &[output.to_owned()], &[]);
    }

    /// The parts `[N, width]` of a value `[N, count * width]`.
    pub fn split(&mut self, value: &str, count: usize, width: usize) -> Vec<String> {
        if count == 1 {
            return vec![value.to_owned()];
        }
        let outputs: Vec<String> = (0..count).map(|_| self.free("Split")).collect();
        let sizes = self.ints(&[count], &vec![width as i64; count]);
        let axis = [("axis", Attribute::Int(1))];
        self.write("Split", &[value, &sizes], &outputs, &axis);
        outputs
    }

    fn write(
        &mut self,
        op: &str,
        inputs: &[&str],
        outputs: &[String],
        attributes: &[(&str, Attribute<'_>)],
    ) {
        let mut node = Message::default();
        inputs.iter().for_each(|name| node.bytes(1, name));
        outputs.iter().for_each(|name| node.bytes(2, name));
        if let Some(name) = outputs.first() {
            node.bytes(3, name);
        }
        node.bytes(4, op);
        for (name, value) in attributes {
            node.attribute(5, name, *value);
        }
        if ML.contains(&op) {
            node.bytes(7, ML_DOMAIN);
        }
        self.nodes.message(1, &node);
    }

    fn constant(&mut self, stem: &str, dims: &[usize], elements: Elements<'_>) -> String {
        let count: usize = dims.iter().product();
        // Names of weights are kept, whatever they hold.
        let key = (stem == "constant" && count <= SMALL).then(|| format!("{dims:?} {elements:?}"));
        if let Some(found) = key.as_ref().and_then(|key| self.small.get(key)) {
            return found.clone();
        }
        let name = self.free(stem);
        self.weights.tensor(5, &name, dims, elements);
        if let Some(key) = key {
            self.small.insert(key, name.clone());
        }
        name
    }

    /// Numbers of `f32`.
    pub fn floats(&mut self, dims: &[usize], values: &[f32]) -> String {
        self.constant("constant", dims, Elements::Floats(values))
    }

    /// Numbers of `f64`.
    pub fn doubles(&mut self, dims: &[usize], values: &[f64]) -> String {
        self.constant("constant", dims, Elements::Doubles(values))
    }

    /// Whole numbers.
    pub fn ints(&mut self, dims: &[usize], values: &[i64]) -> String {
        self.constant("constant", dims, Elements::Ints(values))
    }

    /// Texts.
    pub fn texts(&mut self, values: &[String]) -> String {
        self.constant("constant", &[values.len()], Elements::Texts(values))
    }

    /// A tensor of a model, under its name where it has one.
    ///
    /// # Errors
    /// Numbers that are not of the processor.
    pub fn weight(&mut self, name: &str, tensor: &Tensor) -> Result<String> {
        let stem = if name.is_empty() { "constant" } else { name };
        let dense = tensor.contiguous().during("export")?;
        let values = slice(&dense)?;
        Ok(self.constant(stem, tensor.dims(), Elements::Floats(&values)))
    }

    /// One number of `f32`.
    pub fn float(&mut self, value: f32) -> String {
        self.floats(&[], &[value])
    }

    /// One number of `f64`.
    pub fn double(&mut self, value: f64) -> String {
        self.doubles(&[], &[value])
    }

    /// One whole number.
    pub fn int(&mut self, value: i64) -> String {
        self.ints(&[], &[value])
    }

    /// The same elements as another type.
    pub fn cast(&mut self, value: &str, to: Element) -> String {
        self.node("Cast", &[value], &[("to", Attribute::Int(to as i64))])
    }

    /// The same elements in another shape; at most one length is -1.
    pub fn reshape(&mut self, value: &str, shape: &[i64]) -> String {
        let shape = self.ints(&[shape.len()], shape);
        self.call("Reshape", &[value, &shape])
    }

    /// Values one after the other along an axis; one alone as it is.
    pub fn concat(&mut self, values: &[impl AsRef<str>], axis: i64) -> String {
        let values: Vec<&str> = values.iter().map(AsRef::as_ref).collect();
        match values.as_slice() {
            [one] => (*one).to_owned(),
            all => self.node("Concat", all, &[("axis", Attribute::Int(axis))]),
        }
    }

    /// Elements of an axis, by number.
    pub fn gather(&mut self, value: &str, at: &str, axis: i64) -> String {
        self.node("Gather", &[value, at], &[("axis", Attribute::Int(axis))])
    }

    /// Columns of a value `[N, width]`; all of them in order is the value itself.
    pub fn columns(&mut self, value: &str, at: &[usize], width: usize) -> String {
        if at.iter().copied().eq(0..width) {
            return value.to_owned();
        }
        let at: Vec<i64> = at.iter().map(|c| *c as i64).collect();
        let at = self.ints(&[at.len()], &at);
        self.gather(value, &at, 1)
    }

    /// An axis in another order.
    pub fn transpose(&mut self, value: &str, order: &[i64]) -> String {
        self.node("Transpose", &[value], &[("perm", Attribute::Ints(order))])
    }

    /// Softmax over the last axis.
    pub fn softmax(&mut self, value: &str) -> String {
        self.node("Softmax", &[value], &[("axis", Attribute::Int(-1))])
    }

    /// The number of rows, `[1]`.
    pub fn rows(&mut self) -> String {
        if let Some(found) = self.small.get("rows") {
            return found.clone();
        }
        let input = self
            .inputs
            .first()
            .map_or(String::new(), |p| p.name.clone());
        let ends = [("start", Attribute::Int(0)), ("end", Attribute::Int(1))];
        let found = self.node("Shape", &[&input], &ends);
        self.small.insert("rows".to_owned(), found.clone());
        found
    }
}
