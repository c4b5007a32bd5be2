//! Heads: what they say of a row, calibrated where the model is, and the class that is answered.

use super::graph::Graph;
use super::proto::{Attribute, Element};
use super::search::Lists;
use super::{Port, lower, refused};
use crate::calibrate::{Level, Map, OfHead, within};
use crate::engine::{slice, tensor};
use crate::error::{In, Result};
use crate::tasks::head::{Feature, Head, HeadKind};

/// Names of a head's outputs: the answer, of classes their probabilities, and what holds the truth.
pub(super) struct Outputs {
    pub answer: Port,
    pub probabilities: Option<Port>,
    /// Both ends of a number, the set of classes; empty where no intervals are asked for.
    pub interval: Vec<Port>,
    /// How far the answer may be off for it.
    most: f64,
}

/// Names of classes, by number where the head has no others.
pub(super) fn classes(head: &Head) -> Vec<String> {
    match head.labels.is_empty() {
        true => (0..head.outputs()).map(|i| i.to_string()).collect(),
        false => head.labels.clone(),
    }
}

/// What a head will give, under the names that its columns have in predictions.
///
/// # Errors
/// A head that is not of a model of tables; with a level of intervals one that has none.
pub(super) fn outputs(head: &Head, target: &str, level: Option<Level>) -> Result<Outputs> {
    if head.feature != Feature::Goal
        || matches!(
            head.kind,
            HeadKind::Embedding | HeadKind::Items | HeadKind::Dense(_)
        )
    {
        let what = format!(
            "head `{}` answers by `{}` of kind {}; heads of models of tables answer by `{}` with classes or numbers",
            head.task,
            head.feature.word(),
            head.kind.word(),
            Feature::Goal.word()
        );
        return Err(refused(what).into());
    }
    let name = |stem: &str| match target {
        "" => stem.to_owned(),
        target => format!("{stem}_{target}"),
    };
    let n = head.outputs();
    let listed = || classes(head).join(", ");
    let (element, dims, meaning) = match head.kind {
        HeadKind::Regression => (Element::Float, vec![n], "the number".to_owned()),
        HeadKind::Multilabel => {
            let meaning = format!("1 for each class that is answered: {}", listed());
            (Element::Int, vec![n], meaning)
        }
        _ => (Element::Text, vec![], format!("the class: {}", listed())),
    };
    let most = level.map(|level| within(head, level)).transpose()?;
    let interval = match level {
        None => Vec::new(),
        Some(level) => {
            let target = if target.is_empty() {
                "prediction"
            } else {
                target
            };
            let port = |what: &str, element, meaning: String| Port {
                name: format!("{target}.{what}"),
                element,
                dims: vec![n],
                meaning,
            };
            let level = level.shown();
            match head.kind {
                HeadKind::Regression => {
                    let end = |what: &str, side: &str| {
                        let meaning = format!("the {side} end of the interval of {level}");
                        port(what, Element::Double, meaning)
                    };
                    vec![end("low", "lower"), end("high", "upper")]
                }
                _ => {
                    let meaning = format!("1 for each class of the set of {level}: {}", listed());
                    vec![port("set", Element::Int, meaning)]
                }
            }
        }
    };
    Ok(Outputs {
        interval,
        most: most.unwrap_or_default(),
        answer: Port {
            name: name("prediction"),
            element,
            dims,
            meaning,
        },
        probabilities: (head.kind != HeadKind::Regression).then(|| Port {
            name: name("probabilities"),
            element: Element::Float,
            dims: vec![n],
            meaning: format!("probabilities of the classes, in this order: {}", listed()),
        }),
    })
}

/// The group of every row: its place `[N, 1]`, and how many there are.
pub(super) struct Group<'a> {
    pub place: &'a str,
    pub count: usize,
}

/// Writes a head over the features of its goal, one for each group.
///
/// # Errors
/// Layers that are no matrices.
pub(super) fn head(
    graph: &mut Graph,
    head: &Head,
    features: &[String],
    group: Option<&Group<'_>>,
    to: &Outputs,
) -> Result<()> {
    let scores = scores(graph, head, features)?;
    let said = match group {
        None => said(graph, head, &scores[0])?,
        Some(group) => {
            let all = graph.concat(&scores, 1);
            let shape = [-1, features.len() as i64, head.outputs() as i64];
            let all = graph.reshape(&all, &shape);
            let all = said(graph, head, &all)?;
            of_group(graph, &all, group)
        }
    };
    if let Some(port) = &to.probabilities {
        graph.give(&said, &port.name);
    }
    let answer = answer(graph, head, &said);
    graph.give(&answer, &to.answer.name);
    match &to.interval[..] {
        [low, high] => {
            let (x, most) = (graph.cast(&said, Element::Double), graph.double(to.most));
            for (op, port) in [("Sub", low), ("Add", high)] {
                let end = graph.call(op, &[&x, &most]);
                graph.give(&end, &port.name);
            }
        }
        [set] => {
            let p = graph.cast(&said, Element::Double);
            let (one, most) = (graph.double(1.0), graph.double(to.most));
            let off = graph.call("Sub", &[&one, &p]);
            let within = graph.call("LessOrEqual", &[&off, &most]);
            let within = graph.cast(&within, Element::Int);
            graph.give(&within, &set.name);
        }
        _ => {}
    }
    Ok(())
}

/// What the layers of a head give for the feature of each group: the last one has a part for each.
fn scores(graph: &mut Graph, head: &Head, features: &[String]) -> Result<Vec<String>> {
    let transposed = [("transB", Attribute::Int(1))];
    let mut all = features.to_vec();
    let last = head.layers.len().saturating_sub(1);
    for (i, (weight, bias)) in head.layers.iter().enumerate() {
        let name = head.layer(i);
        let names = [format!("{name}.weight"), format!("{name}.bias")];
        let shared = match i == last && all.len() > 1 {
            true => None,
            false => Some([
                graph.weight(&names[0], weight)?,
                graph.weight(&names[1], bias)?,
            ]),
        };
        let parts = all.len();
        for (group, x) in all.iter_mut().enumerate() {
            if i > 0 {
                *x = lower::activation(graph, x, head.activation);
            }
            let [w, b] = match &shared {
                Some(shared) => shared.clone(),
                None => [
                    graph.weight(&names[0], &part(weight, group, parts)?)?,
                    graph.weight(&names[1], &part(bias, group, parts)?)?,
                ],
            };
            *x = graph.node("Gemm", &[x, &w, &b], &transposed);
        }
    }
    Ok(all)
}

/// One of some equal parts along the first axis.
fn part(of: &crate::engine::Tensor, at: usize, parts: usize) -> Result<crate::engine::Tensor> {
    let dense = of.contiguous().during("export")?;
    let all = slice(&dense)?;
    let size = all.len() / parts;
    let mut dims = of.dims().to_vec();
    dims[0] /= parts;
    tensor(all[at * size..][..size].to_vec(), dims)
}

/// Probabilities or numbers of scores, on the last axis.
fn said(graph: &mut Graph, head: &Head, scores: &str) -> Result<String> {
    Ok(match head.kind {
        HeadKind::Multilabel => graph.call("Sigmoid", &[scores]),
        HeadKind::Regression => {
            let [mean, deviation] = head.scale;
            if [mean, deviation] == [0.0, 1.0] {
                return Ok(scores.to_owned());
            }
            let x = graph.cast(scores, Element::Double);
            let (mean, deviation) = (graph.double(mean), graph.double(deviation));
            let x = graph.call("Mul", &[&x, &deviation]);
            let x = graph.call("Add", &[&x, &mean]);
            graph.cast(&x, Element::Float)
        }
        HeadKind::Classification => {
            match head.calibration.as_deref().and_then(|c| c.map.as_ref()) {
                None => graph.softmax(scores),
                Some(Map::Temperature { temperature }) => {
                    let x = graph.cast(scores, Element::Double);
                    let factor = graph.double(1.0 / temperature);
                    let x = graph.call("Mul", &[&x, &factor]);
                    let p = graph.softmax(&x);
                    graph.cast(&p, Element::Float)
                }
                Some(Map::Isotonic { curve }) => {
                    let positive = head.calibration.as_deref().map_or(1, OfHead::positive);
                    let x = graph.cast(scores, Element::Double);
                    let p = graph.softmax(&x);
                    let at = graph.ints(&[1], &[positive as i64]);
                    let p = graph.gather(&p, &at, -1);
                    let q = isotonic(graph, &p, [&curve.scores, &curve.values]);
                    let one = graph.double(1.0);
                    let rest = graph.call("Sub", &[&one, &q]);
                    let both = match positive {
                        0 => [q, rest],
                        _ => [rest, q],
                    };
                    let both = graph.concat(&both, -1);
                    graph.cast(&both, Element::Float)
                }
            }
        }
        HeadKind::Embedding | HeadKind::Items | HeadKind::Dense(_) => {
            return Err(refused("a head of vectors or maps").into());
        }
    })
}

/// A curve through knots, level outside.
fn isotonic(graph: &mut Graph, p: &str, [knots, values]: [&[f64]; 2]) -> String {
    let (knots, values) = (
        Lists::new(graph, vec![knots]),
        Lists::new(graph, vec![values]),
    );
    let count = knots.count(graph, p, "LessOrEqual");
    let [below, above] = knots.around(graph, &count);
    let [s0, s1] = [&below, &above].map(|at| knots.at(graph, at));
    let [v0, v1] = [&below, &above].map(|at| values.at(graph, at));
    let (past, gap) = (graph.call("Sub", &[p, &s0]), graph.call("Sub", &[&s1, &s0]));
    let part = graph.call("Div", &[&past, &gap]);
    let rise = graph.call("Sub", &[&v1, &v0]);
    let rise = graph.call("Mul", &[&rise, &part]);
    let between = graph.call("Add", &[&v0, &rise]);
    let beyond = graph.call("Equal", &[&below, &above]);
    graph.call("Where", &[&beyond, &v0, &between])
}

/// Of what the goals of all groups say `[N, groups, out]` that of the row's group, else the mean of all.
fn of_group(graph: &mut Graph, said: &str, group: &Group<'_>) -> String {
    let all: Vec<i64> = (0..group.count as i64).collect();
    let all = graph.ints(&[1, group.count], &all);
    let own = graph.call("Equal", &[group.place, &all]);
    let zero = graph.int(0);
    let none = graph.call("Less", &[group.place, &zero]);
    let counts = graph.call("Or", &[&own, &none]);
    let counts = graph.cast(&counts, Element::Double);
    let counts = graph.reshape(&counts, &[-1, group.count as i64, 1]);
    let said = graph.cast(said, Element::Double);
    let said = graph.call("Mul", &[&said, &counts]);
    let axis = graph.ints(&[1], &[1]);
    let flat = [("keepdims", Attribute::Int(0))];
    let sum = graph.node("ReduceSum", &[&said, &axis], &flat);
    let count = graph.node("ReduceSum", &[&counts, &axis], &flat);
    let mean = graph.call("Div", &[&sum, &count]);
    graph.cast(&mean, Element::Float)
}

/// The answer in words: as `tasks::answers::prediction` has it.
fn answer(graph: &mut Graph, head: &Head, said: &str) -> String {
    match head.kind {
        HeadKind::Classification => {
            let calibration = head.calibration.as_deref();
            let place = match calibration.and_then(|c| Some((c.threshold.as_ref()?, c.positive())))
            {
                None => {
                    let rule = [
                        ("axis", Attribute::Int(-1)),
                        ("keepdims", Attribute::Int(0)),
                    ];
                    graph.node("ArgMax", &[said], &rule)
                }
                Some((cut, positive)) => {
                    let at = graph.int(positive as i64);
                    let p = graph.gather(said, &at, 1);
                    let p = graph.cast(&p, Element::Double);
                    let cut = graph.double(cut.cut);
                    let over = graph.call("GreaterOrEqual", &[&p, &cut]);
                    let other = graph.int(1 - positive.min(1) as i64);
                    graph.call("Where", &[&over, &at, &other])
                }
            };
            let names = graph.texts(&classes(head));
            graph.gather(&names, &place, 0)
        }
        HeadKind::Multilabel => {
            let half = graph.float(0.5);
            let over = graph.call("Greater", &[said, &half]);
            graph.cast(&over, Element::Int)
        }
        HeadKind::Regression | HeadKind::Embedding | HeadKind::Items | HeadKind::Dense(_) => {
            said.to_owned()
        }
    }
}
