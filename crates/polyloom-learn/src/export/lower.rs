//! The values of a network as nodes of a graph.

use super::graph::Graph;
use super::proto::Attribute;
use super::refused;
use super::trace::{From, Length, MORE, Step, Trace, odd};
use crate::engine::Meaning;
use crate::error::Result;
use crate::ops::Activation;

/// Writes a network over the numbers `[N, numbers]` and the codes `[N, fields]` of rows; returns the features of the goals,
/// each `[N, width]`.
///
/// # Errors
/// What has no form in ONNX: which operation.
pub(super) fn network(
    graph: &mut Graph,
    trace: &Trace,
    numbers: Option<&str>,
    codes: &[String],
) -> Result<Vec<String>> {
    let codes = (!codes.is_empty()).then(|| {
        let all = graph.concat(codes, 1);
        let first: Vec<i64> = trace.codes[0].iter().map(|c| i64::from(*c)).collect();
        let first = graph.ints(&[1, first.len()], &first);
        graph.call("Add", &[&all, &first])
    });
    let mut lowering = Lowering {
        graph,
        trace,
        codes,
        names: Vec::with_capacity(trace.steps.len()),
    };
    for step in &trace.steps {
        let name = match &step.from {
            From::Numbers => numbers
                .map(str::to_owned)
                .ok_or_else(|| odd("numbers, and rows have none"))?,
            From::Tensor(name) => lowering.tensor(step, name)?,
            From::Made => lowering.made(step)?,
        };
        lowering.names.push(name);
    }
    Ok(trace
        .goals
        .iter()
        .map(|g| lowering.names[*g].clone())
        .collect())
}

struct Lowering<'a> {
    graph: &'a mut Graph,
    trace: &'a Trace,
    /// Rows of the table of all categories, `[N, fields]`.
    codes: Option<String>,
    /// Of the steps so far.
    names: Vec<String>,
}

/// A shape as `Reshape` takes it.
fn shape(dims: &[Length]) -> Result<Vec<i64>> {
    let one = |d: &Length| match d {
        Length::Fixed(n) => *n as i64,
        Length::Rows(_) => -1,
    };
    let shape: Vec<i64> = dims.iter().map(one).collect();
    match shape.iter().filter(|d| **d < 0).count() {
        0 | 1 => Ok(shape),
        _ => Err(odd("a shape with the rows on two axes").into()),
    }
}

impl Lowering<'_> {
    /// A tensor of the model, or a constant: repeated where it is one for each row.
    fn tensor(&mut self, step: &Step, name: &str) -> Result<String> {
        if !name.is_empty() {
            return self.graph.weight(name, step.value.data());
        }
        let weight = self.graph.weight(name, &step.constant()?)?;
        match step.dims.first() {
            Some(Length::Rows(_)) => self.repeated(&weight, &step.dims),
            _ => Ok(weight),
        }
    }

    /// `[each, ..]` for every row, as `dims` say.
    fn repeated(&mut self, one: &str, dims: &[Length]) -> Result<String> {
        let mut ones = vec![1];
        ones.extend(dims.iter().map(|d| match d {
            Length::Fixed(n) | Length::Rows(n) => *n as i64,
        }));
        let block = self.graph.reshape(one, &ones);
        let rest = self.graph.ints(&[dims.len()], &ones[1..]);
        let rows = self.graph.rows();
        let whole = self.graph.concat(&[&rows, &rest], 0);
        let all = self.graph.call("Expand", &[&block, &whole]);
        Ok(self.graph.reshape(&all, &shape(dims)?))
    }

    /// A length as `[1]`.
    fn length(&mut self, length: Length) -> String {
        match length {
            Length::Fixed(n) => self.graph.ints(&[1], &[n as i64]),
            Length::Rows(0) => self.graph.ints(&[1], &[0]),
            Length::Rows(1) => self.graph.rows(),
            Length::Rows(n) => {
                let (rows, n) = (self.graph.rows(), self.graph.int(n as i64));
                self.graph.call("Mul", &[&rows, &n])
            }
        }
    }

    /// What an operation gives.
    fn made(&mut self, step: &Step) -> Result<String> {
        let (meaning, other) = step.meaning()?;
        let names: Vec<String> = step.inputs.iter().map(|i| self.names[*i].clone()).collect();
        let inputs: Vec<&str> = names.iter().map(String::as_str).collect();
        match (meaning, other) {
            (Meaning::Rows(few), Meaning::Rows(more)) => {
                return self.looked_up(step, &names, few, more);
            }
            (Meaning::Narrow { axis, start }, Meaning::Narrow { start: of, .. }) => {
                return self.narrow(step, &names, axis, [start, of]);
            }
            (meaning, other) if meaning != other => {
                return Err(odd("an operation that depends on the number of rows").into());
            }
            _ => {}
        }
        let dims = |i: usize| &self.trace.steps[step.inputs[i]].dims;
        Ok(match meaning {
            Meaning::Linear if dims(0).len() == 2 => self.linear(&inputs),
            Meaning::Linear => {
                let width = dims(0).last().copied().into_iter();
                let flat: Vec<Length> = [Length::Rows(1)].into_iter().chain(width).collect();
                let x = self.graph.reshape(inputs[0], &shape(&flat)?);
                let mut inputs = inputs.clone();
                inputs[0] = &x;
                let y = self.linear(&inputs);
                self.graph.reshape(&y, &shape(&step.dims)?)
            }
            Meaning::GroupedLinear(groups) => self.grouped(step, &inputs, groups)?,
            Meaning::Product => self.graph.call("MatMul", &inputs),
            Meaning::Activation(kind) => activation(self.graph, inputs[0], kind),
            Meaning::SmoothStep(width) => self.smooth_step(inputs[0], width),
            Meaning::Softmax => self.graph.softmax(inputs[0]),
            Meaning::Blend => self.blend(step, &inputs)?,
            Meaning::Sum(1.0) => self.graph.call("Add", &inputs),
            Meaning::Sum(-1.0) => self.graph.call("Sub", &inputs),
            Meaning::Sum(_) => return Err(odd("a sum with a factor").into()),
            Meaning::Mul | Meaning::TimesRow => self.graph.call("Mul", &inputs),
            Meaning::PlusRow => self.graph.call("Add", &inputs),
            Meaning::Scale(factor) => {
                let factor = self.graph.float(factor);
                self.graph.call("Mul", &[inputs[0], &factor])
            }
            Meaning::BatchNorm(scale) => {
                let (mean, rstd) = scale.parts();
                let mean = self.graph.floats(&[mean.len()], mean);
                let rstd = self.graph.floats(&[rstd.len()], rstd);
                let x = self.graph.call("Sub", &[inputs[0], &mean]);
                let factor = self.graph.call("Mul", &[inputs[1], &rstd]);
                let x = self.graph.call("Mul", &[&x, &factor]);
                self.graph.call("Add", &[&x, inputs[2]])
            }
            Meaning::LayerNorm(eps) => {
                let rule = [
                    ("axis", Attribute::Int(-1)),
                    ("epsilon", Attribute::Float(eps)),
                ];
                self.graph.node("LayerNormalization", &inputs, &rule)
            }
            Meaning::Attention { heads, scale } => self.attention(step, &inputs, heads, scale)?,
            Meaning::Reshape => self.graph.reshape(inputs[0], &shape(&step.dims)?),
            Meaning::Concat(axis) => self.graph.concat(&inputs, axis as i64),
            Meaning::Rows(_) | Meaning::Narrow { .. } => {
                return Err(odd("a part of a value").into());
            }
        })
    }

    fn linear(&mut self, inputs: &[&str]) -> String {
        self.graph
            .node("Gemm", inputs, &[("transB", Attribute::Int(1))])
    }

    /// Rows of a table: those of the rows' codes, or the same for every row.
    fn looked_up(
        &mut self,
        step: &Step,
        names: &[String],
        few: &[u32],
        more: &[u32],
    ) -> Result<String> {
        let whole = |ids: &[u32]| -> Vec<i64> { ids.iter().map(|i| i64::from(*i)).collect() };
        let Some(Length::Rows(_)) = step.dims.first() else {
            if few != more {
                return Err(odd("numbers of rows that depend on the rows").into());
            }
            let at = self.graph.ints(&[few.len()], &whole(few));
            let found = self.graph.gather(&names[0], &at, 0);
            return Ok(self.graph.reshape(&found, &shape(&step.dims)?));
        };
        let each = more.len() / MORE;
        let repeats =
            |ids: &[u32], one: &[u32]| !one.is_empty() && ids.chunks(one.len()).all(|c| c == one);
        let one = few.get(..each).unwrap_or_default();
        if repeats(few, one) && repeats(more, one) {
            let at = self.graph.ints(&[each], &whole(one));
            let found = self.graph.gather(&names[0], &at, 0);
            return self.repeated(&found, &step.dims);
        }
        let [low, high] = &self.trace.codes;
        match &self.codes {
            Some(codes) if repeats(few, low) && repeats(more, high) => {
                let found = self.graph.gather(&names[0], codes, 0);
                Ok(self.graph.reshape(&found, &shape(&step.dims)?))
            }
            _ => Err(odd("numbers of rows that depend on the rows").into()),
        }
    }

    /// A part of an axis.
    fn narrow(
        &mut self,
        step: &Step,
        names: &[String],
        axis: usize,
        start: [usize; 2],
    ) -> Result<String> {
        let apart = || odd("a part of a value that begins nowhere");
        let from = Length::of(start[0], start[1]).ok_or_else(apart)?;
        let end =
            |value: &crate::engine::Value, start: usize| value.dims().get(axis).map(|n| start + n);
        let (Some(few), Some(more)) = (end(&step.value, start[0]), end(&step.other, start[1]))
        else {
            return Err(apart().into());
        };
        let to = Length::of(few, more).ok_or_else(apart)?;
        let whole = self.trace.steps[step.inputs[0]].dims.get(axis);
        if from == Length::Fixed(0) && whole == Some(&to) {
            return Ok(names[0].clone());
        }
        let (from, to) = (self.length(from), self.length(to));
        let axis = self.graph.ints(&[1], &[axis as i64]);
        Ok(self.graph.call("Slice", &[&names[0], &from, &to, &axis]))
    }

    /// Linear layers side by side, as a product of stacks of matrices.
    fn grouped(&mut self, step: &Step, inputs: &[&str], groups: usize) -> Result<String> {
        let [x, weight] = [0, 1].map(|i| self.trace.steps[step.inputs[i]].value.dims());
        let (wide, out) = (x[1] / groups, weight[0] / groups);
        let n = |n: usize| n as i64;
        let x = self.graph.reshape(inputs[0], &[-1, n(groups), n(wide)]);
        let x = self.graph.transpose(&x, &[1, 0, 2]);
        let w = self.graph.reshape(inputs[1], &[n(groups), n(out), n(wide)]);
        let w = self.graph.transpose(&w, &[0, 2, 1]);
        let y = self.graph.call("MatMul", &[&x, &w]);
        let y = self.graph.transpose(&y, &[1, 0, 2]);
        let y = self.graph.reshape(&y, &shape(&step.dims)?);
        Ok(match inputs.get(2) {
            Some(bias) => self.graph.call("Add", &[&y, bias]),
            None => y,
        })
    }

    /// Experts side by side times their weights, by row.
    fn blend(&mut self, step: &Step, inputs: &[&str]) -> Result<String> {
        let weights = &self.trace.steps[step.inputs[0]].value;
        let (experts, width) = (weights.dims()[1] as i64, step.value.dims()[1] as i64);
        let parts = self.graph.concat(&inputs[1..], 1);
        let parts = self.graph.reshape(&parts, &[-1, experts, width]);
        let weights = self.graph.reshape(inputs[0], &[-1, 1, experts]);
        let sum = self.graph.call("MatMul", &[&weights, &parts]);
        Ok(self.graph.reshape(&sum, &shape(&step.dims)?))
    }

    /// `(3/2 - 2 t²) t + 1/2` with `t = x / width`, cut to a half.
    fn smooth_step(&mut self, x: &str, width: f32) -> String {
        let [width, low, high, slope, two, half] =
            [width, -0.5, 0.5, 1.5, 2.0, 0.5].map(|x| self.graph.float(x));
        let t = self.graph.call("Div", &[x, &width]);
        let t = self.graph.call("Clip", &[&t, &low, &high]);
        let square = self.graph.call("Mul", &[&t, &t]);
        let square = self.graph.call("Mul", &[&two, &square]);
        let factor = self.graph.call("Sub", &[&slope, &square]);
        let y = self.graph.call("Mul", &[&factor, &t]);
        self.graph.call("Add", &[&y, &half])
    }

    /// Attention within a row.
    fn attention(
        &mut self,
        step: &Step,
        inputs: &[&str],
        heads: usize,
        scale: f32,
    ) -> Result<String> {
        let &[Length::Rows(1), Length::Fixed(length), Length::Fixed(width)] = &step.dims[..] else {
            let what = "a row's answer depends on the rows beside it (`attention = \"row_col\"`), which no graph of rows can say";
            return Err(refused(what)
                .hint("train with attention = \"col\", the default")
                .into());
        };
        let (heads, dim) = (heads as i64, (width / heads) as i64);
        let Some(Length::Fixed(keys)) = self.trace.steps[step.inputs[1]].dims.get(1).copied()
        else {
            return Err(odd("attention to as many keys as there are rows").into());
        };
        let mut split = |x: &str, length: usize, order: &[i64]| {
            let x = self.graph.reshape(x, &[-1, length as i64, heads, dim]);
            self.graph.transpose(&x, order)
        };
        let q = split(inputs[0], length, &[0, 2, 1, 3]);
        let v = split(inputs[2], keys, &[0, 2, 1, 3]);
        let k = split(inputs[1], keys, &[0, 2, 3, 1]);
        let scores = self.graph.call("MatMul", &[&q, &k]);
        let scale = self.graph.float(scale);
        let mut scores = self.graph.call("Mul", &[&scores, &scale]);
        if let Some(bias) = inputs.get(3) {
            scores = self.graph.call("Add", &[&scores, bias]);
        }
        let weights = self.graph.softmax(&scores);
        let seen = self.graph.call("MatMul", &[&weights, &v]);
        let seen = self.graph.transpose(&seen, &[0, 2, 1, 3]);
        Ok(self.graph.reshape(&seen, &shape(&step.dims)?))
    }
}

/// An activation of every element.
pub(super) fn activation(graph: &mut Graph, x: &str, kind: Activation) -> String {
    // Half of x, times 1 and this.
    let halved = |graph: &mut Graph, x: &str, share: &str| {
        let (half, one) = (graph.float(0.5), graph.float(1.0));
        let x = graph.call("Mul", &[&half, x]);
        let share = graph.call("Add", &[&one, share]);
        graph.call("Mul", &[&x, &share])
    };
    match kind {
        Activation::Relu => graph.call("Relu", &[x]),
        Activation::Tanh => graph.call("Tanh", &[x]),
        Activation::Sigmoid => graph.call("Sigmoid", &[x]),
        Activation::Silu => {
            let share = graph.call("Sigmoid", &[x]);
            graph.call("Mul", &[x, &share])
        }
        Activation::QuickGelu => {
            let slope = graph.float(1.702);
            let share = graph.call("Mul", &[x, &slope]);
            let share = graph.call("Sigmoid", &[&share]);
            graph.call("Mul", &[x, &share])
        }
        Activation::Gelu => {
            let root = graph.float(std::f32::consts::FRAC_1_SQRT_2);
            let share = graph.call("Mul", &[&root, x]);
            let share = graph.call("Erf", &[&share]);
            halved(graph, x, &share)
        }
        Activation::GeluTanh => {
            let (root, cube) = (graph.float(0.797_884_6), graph.float(0.044_715));
            let square = graph.call("Mul", &[x, x]);
            let cubed = graph.call("Mul", &[&square, x]);
            let cubed = graph.call("Mul", &[&cube, &cubed]);
            let share = graph.call("Add", &[x, &cubed]);
            let share = graph.call("Mul", &[&root, &share]);
            let share = graph.call("Tanh", &[&share]);
            halved(graph, x, &share)
        }
    }
}
