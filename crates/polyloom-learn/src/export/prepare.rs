//! Cells to numbers and codes, as [`crate::table::RowReader`] makes them: in `f64` up to the last step, as there.

use std::collections::HashMap;

use polyloom::evaluate::board::score::examples::ColumnKind;
use polyloom::evaluate::statistics::normal_quantile::{MIDDLE, NEAR, Ratio, TAIL, TAIL_FROM};

use super::graph::Graph;
use super::proto::{Attribute, Element};
use super::search::Lists;
use super::{Port, refused};
use crate::error::Result;
use crate::table::{EDGE, Groups, Preparation, Prepared};

/// What rows become.
pub(super) struct Rows {
    /// Scaled numbers and marks of what is missing, `[N, numbers]` of `f32`; none where a row has none.
    pub numbers: Option<String>,
    /// Codes of every field of words, each `[N, 1]`.
    pub codes: Vec<String>,
    /// The place of the group, `[N, 1]`; -1 for one without a goal.
    pub group: Option<String>,
}

/// The inputs of a graph: a column each, in the order of the preparation, that of the groups last.
///
/// # Errors
/// A column without a name, or of running text.
pub(super) fn inputs(preparation: &Preparation) -> Result<Vec<Port>> {
    let mut ports = Vec::new();
    for column in preparation.asked() {
        if column.name.is_empty() {
            return Err(refused("a column has no name, and inputs are known by it")
                .hint("name it in the table, and train again")
                .into());
        }
        let group = preparation
            .groups()
            .is_some_and(|g| g.column == column.name);
        let (element, meaning) = match (column.kind, group) {
            (ColumnKind::Text, _) => {
                let what = format!(
                    "column `{}` is running text, which no standard operator of ONNX makes numbers of",
                    column.name
                );
                let hint = format!("train again with --drop {}", column.name);
                return Err(refused(&what).hint(hint).into());
            }
            (ColumnKind::Number, _) => (
                Element::Double,
                "a number; of a date the days since 1970-01-01; NaN where it is missing",
            ),
            (ColumnKind::Word, false) => (Element::Text, "a word; empty where it is missing"),
            (ColumnKind::Word, true) => (
                Element::Text,
                "the group of the row; empty where it is missing",
            ),
        };
        ports.push(Port {
            name: column.name,
            element,
            dims: vec![1],
            meaning: meaning.to_owned(),
        });
    }
    Ok(ports)
}

/// Writes the preparation.
pub(super) fn rows(graph: &mut Graph, preparation: &Preparation) -> Rows {
    let columns = preparation.columns();
    let codes = columns.iter().filter_map(|column| match column {
        Prepared::Words { name, words, .. } => Some(code(graph, name, words)),
        Prepared::Number { .. } | Prepared::Text { .. } | Prepared::Vector { .. } => None,
    });
    let codes = codes.collect();
    Rows {
        codes,
        numbers: numbers(graph, preparation),
        group: preparation.groups().map(|g| group(graph, g)),
    }
}

/// Words with their codes as keys and values of an encoder; the last of equal ones counts.
fn encoder(graph: &mut Graph, input: &str, pairs: Vec<(String, i64)>, other: i64) -> String {
    let mut at: HashMap<String, usize> = HashMap::new();
    let mut kept: Vec<(String, i64)> = Vec::with_capacity(pairs.len());
    for (word, code) in pairs {
        match at.get(&word) {
            Some(place) => kept[*place].1 = code,
            None => {
                at.insert(word.clone(), kept.len());
                kept.push((word, code));
            }
        }
    }
    let (words, codes): (Vec<String>, Vec<i64>) = kept.into_iter().unzip();
    graph.node(
        "LabelEncoder",
        &[input],
        &[
            ("keys_strings", Attribute::Texts(&words)),
            ("values_int64s", Attribute::Ints(&codes)),
            ("default_int64", Attribute::Int(other)),
        ],
    )
}

/// Codes of a column of words: the place plus 1, and 0 for every other word.
fn code(graph: &mut Graph, name: &str, words: &[Option<String>]) -> String {
    let mut missing = 0;
    let mut pairs = Vec::with_capacity(words.len() + 1);
    for (word, code) in words.iter().zip(1i64..) {
        match word {
            Some(word) => pairs.push((word.clone(), code)),
            None => missing = code,
        }
    }
    // An empty cell is none, whatever words there are.
    pairs.push((String::new(), missing));
    encoder(graph, name, pairs, 0)
}

/// Places of groups. Numbers may end in `.0`, as tables with missing values have them.
fn group(graph: &mut Graph, groups: &Groups) -> String {
    let all = || groups.values.iter().cloned().zip(0i64..);
    let wholes = all().map(|(value, place)| (format!("{value}.0"), place));
    let pairs = wholes.chain(all()).chain([(String::new(), -1)]);
    encoder(graph, &groups.column, pairs.collect(), -1)
}

/// A column of numbers.
struct Number<'a> {
    name: &'a str,
    mean: f64,
    deviation: f64,
    landmarks: &'a [f64],
    marked: bool,
}

/// All numbers side by side, then the marks of what is missing, in the order of the columns.
fn numbers(graph: &mut Graph, preparation: &Preparation) -> Option<String> {
    let (mut parts, of_numbers) = match scaled_numbers(graph, preparation) {
        Some((numbers, marks)) => (vec![numbers], marks),
        None => (Vec::new(), None),
    };
    // Where each mark lies: those of numbers first, then those of words.
    let (mut marks, mut order, mut next) = (Vec::new(), Vec::new(), 0);
    marks.extend(of_numbers);
    let columns = || preparation.columns().iter().filter(|c| c.is_marked());
    let mut of_words = columns().filter(|c| number(c).is_some()).count();
    for column in columns() {
        if number(column).is_some() {
            order.push(next);
            next += 1;
        } else {
            let empty = vec![(String::new(), 1)];
            let mark = encoder(graph, column.name(), empty, 0);
            marks.push(graph.cast(&mark, Element::Float));
            order.push(of_words);
            of_words += 1;
        }
    }
    if !marks.is_empty() {
        let all = graph.concat(&marks, 1);
        parts.push(match order.is_sorted() {
            true => all,
            false => graph.columns(&all, &order, order.len()),
        });
    }
    (!parts.is_empty()).then(|| graph.concat(&parts, 1))
}

/// Numbers side by side, and the marks of those that have one; `None` without numbers.
fn scaled_numbers(
    graph: &mut Graph,
    preparation: &Preparation,
) -> Option<(String, Option<String>)> {
    let columns = preparation.columns().iter();
    let columns: Vec<Number<'_>> = columns.filter_map(number).collect();
    if columns.is_empty() {
        return None;
    }
    let names: Vec<&str> = columns.iter().map(|c| c.name).collect();
    let given = graph.concat(&names, 1);
    let (nan, infinite) = (
        graph.call("IsNaN", &[&given]),
        graph.call("IsInf", &[&given]),
    );
    let missing = graph.call("Or", &[&nan, &infinite]);
    let means: Vec<f64> = columns.iter().map(|c| c.mean).collect();
    let means = graph.doubles(&[1, means.len()], &means);
    let there = graph.call("Where", &[&missing, &means, &given]);
    let scaled = scaled(graph, &columns, &there);
    let nothing = graph.double(0.0);
    let scaled = graph.call("Where", &[&missing, &nothing, &scaled]);
    let scaled = graph.cast(&scaled, Element::Float);
    let (low, high) = (
        graph.float(-preparation.clip()),
        graph.float(preparation.clip()),
    );
    let scaled = graph.call("Clip", &[&scaled, &low, &high]);
    let marked: Vec<usize> = (0..columns.len()).filter(|i| columns[*i].marked).collect();
    let marks = (!marked.is_empty()).then(|| {
        let marks = graph.columns(&missing, &marked, columns.len());
        graph.cast(&marks, Element::Float)
    });
    Some((scaled, marks))
}

fn number(column: &Prepared) -> Option<Number<'_>> {
    match column {
        Prepared::Number {
            name,
            mean,
            deviation,
            landmarks,
            missing,
        } => Some(Number {
            name,
            mean: *mean,
            deviation: *deviation,
            landmarks,
            marked: *missing,
        }),
        _ => None,
    }
}

/// Numbers that are there, scaled: each by its column's rule.
fn scaled(graph: &mut Graph, columns: &[Number<'_>], given: &str) -> String {
    let n = columns.len();
    let (ranked, plain): (Vec<usize>, Vec<usize>) =
        (0..n).partition(|i| columns[*i].landmarks.len() > 1);
    let mut parts = Vec::new();
    if !ranked.is_empty() {
        let x = graph.columns(given, &ranked, n);
        let lists = ranked.iter().map(|i| columns[*i].landmarks).collect();
        let p = rank(graph, lists, &x);
        parts.push(normal(graph, &p));
    }
    if !plain.is_empty() {
        let x = graph.columns(given, &plain, n);
        let of = |f: fn(&Number<'_>) -> f64| plain.iter().map(|i| f(&columns[*i])).collect();
        let (means, deviations): (Vec<f64>, Vec<f64>) = (of(|c| c.mean), of(|c| c.deviation));
        let means = graph.doubles(&[1, plain.len()], &means);
        let deviations = graph.doubles(&[1, plain.len()], &deviations);
        let x = graph.call("Sub", &[&x, &means]);
        parts.push(graph.call("Div", &[&x, &deviations]));
    }
    let all = graph.concat(&parts, 1);
    let order: Vec<usize> = ranked.into_iter().chain(plain).collect();
    let mut back = vec![0; n];
    order
        .iter()
        .enumerate()
        .for_each(|(i, column)| back[*column] = i);
    graph.columns(&all, &back, n)
}

/// Where numbers stand among landmarks, as `crate::table` has it.
fn rank(graph: &mut Graph, landmarks: Vec<&[f64]>, x: &str) -> String {
    let steps: Vec<f64> = landmarks.iter().map(|l| (l.len() - 1) as f64).collect();
    let lists = Lists::new(graph, landmarks);
    let steps = graph.doubles(&[1, steps.len()], &steps);
    let (from, to) = (
        lists.count(graph, x, "Less"),
        lists.count(graph, x, "LessOrEqual"),
    );
    let one = graph.int(1);
    // Equal to one or several: the middle of their places.
    let sum = graph.call("Add", &[&from, &to]);
    let sum = graph.call("Sub", &[&sum, &one]);
    let sum = graph.cast(&sum, Element::Double);
    let two = graph.double(2.0);
    let middle = graph.call("Div", &[&sum, &two]);
    let middle = graph.call("Div", &[&middle, &steps]);
    // Between two.
    let [below, above] = lists.around(graph, &from);
    let (low, high) = (lists.at(graph, &below), lists.at(graph, &above));
    let (past, gap) = (
        graph.call("Sub", &[x, &low]),
        graph.call("Sub", &[&high, &low]),
    );
    let part = graph.call("Div", &[&past, &gap]);
    let before = graph.call("Sub", &[&from, &one]);
    let before = graph.cast(&before, Element::Double);
    let between = graph.call("Add", &[&before, &part]);
    let between = graph.call("Div", &[&between, &steps]);
    // Beyond the ends.
    let (zero, first, last) = (graph.int(0), graph.double(0.0), graph.double(1.0));
    let lengths = lists.lengths(graph);
    let over = graph.call("Equal", &[&from, &lengths]);
    let rank = graph.call("Where", &[&over, &last, &between]);
    let under = graph.call("Equal", &[&from, &zero]);
    let rank = graph.call("Where", &[&under, &first, &rank]);
    let equal = graph.call("Less", &[&from, &to]);
    let rank = graph.call("Where", &[&equal, &middle, &rank]);
    let (least, most) = (graph.double(EDGE), graph.double(1.0 - EDGE));
    graph.call("Clip", &[&rank, &least, &most])
}

/// Quantiles of the normal distribution; `p` is at least [`EDGE`] away from 0 and 1, where the last of the three ratios of the
/// program that this follows is not reached.
fn normal(graph: &mut Graph, p: &str) -> String {
    let (half, one) = (graph.double(0.5), graph.double(1.0));
    let away = graph.call("Sub", &[p, &half]);
    let square = graph.call("Mul", &[&away, &away]);
    let near = graph.double(NEAR * NEAR);
    let inner = graph.call("Sub", &[&near, &square]);
    let inner = ratio(graph, &MIDDLE, &inner);
    let inner = graph.call("Mul", &[&away, &inner]);
    let zero = graph.double(0.0);
    let low = graph.call("Less", &[&away, &zero]);
    let rest = graph.call("Sub", &[&one, p]);
    let tail = graph.call("Where", &[&low, p, &rest]);
    let tail = graph.call("Log", &[&tail]);
    let tail = graph.call("Neg", &[&tail]);
    let root = graph.call("Sqrt", &[&tail]);
    let from = graph.double(TAIL_FROM);
    let root = graph.call("Sub", &[&root, &from]);
    let outer = ratio(graph, &TAIL, &root);
    let minus = graph.call("Neg", &[&outer]);
    let outer = graph.call("Where", &[&low, &minus, &outer]);
    let near = graph.double(NEAR);
    let size = graph.call("Abs", &[&away]);
    let inside = graph.call("LessOrEqual", &[&size, &near]);
    graph.call("Where", &[&inside, &inner, &outer])
}

/// A ratio of polynomials.
fn ratio(graph: &mut Graph, of: &Ratio, x: &str) -> String {
    let mut value = |coefficients: &[f64; 8]| {
        let mut sum = graph.double(coefficients[0]);
        for c in &coefficients[1..] {
            let c = graph.double(*c);
            let product = graph.call("Mul", &[&sum, x]);
            sum = graph.call("Add", &[&product, &c]);
        }
        sum
    };
    let (above, below) = (value(&of.0), value(&of.1));
    graph.call("Div", &[&above, &below])
}
