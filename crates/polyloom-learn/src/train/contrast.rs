//! Losses of vectors: in-batch negatives for retrieval, the order of cosines for similarity.

use polyloom::evaluate::board::score::examples::Wanted;

use super::objective::labelled;
use crate::engine::{Value, tensor};
use crate::error::{Error, Result};
use crate::ops;

/// What makes a score no candidate: its share of the softmax is 0 in `f32`.
const NEVER: f32 = -1e9;

/// The loss of pairs of vectors at length 1, `[n, 2 width]` (the first of every pair, then the second), over the rows that
/// say what is right, with how many they are; `None` where none does. Cosines are divided by `temperature`.
///
/// - Retrieval ([`Wanted::Relevant`]): InfoNCE (van den Oord et al. 2018) with in-batch negatives: the mean over queries of
///   the cross-entropy of their own document among the documents of all rows. Other rows' documents that are relevant for
///   a query are no negatives of it and are left out.
/// - Similarity ([`Wanted::Number`]): CoSENT, `log(1 + sum exp((c_j - c_i) / temperature))` over all pairs of rows with
///   `gold_i > gold_j`, where c are cosines. It reads the order of the gold numbers alone, so their unit does not count. That
///   similarity is learned by this loss is our choice; the papers that we follow say nothing of it.
///
/// # Errors
/// What is right is neither, or some of both.
pub fn contrast(
    vectors: &Value,
    wanted: &[Option<&Wanted>],
    temperature: f32,
) -> Result<Option<(Value, usize)>> {
    let Some((vectors, known)) = labelled(vectors, wanted)? else {
        return Ok(None);
    };
    let width = vectors.dims().last().copied().unwrap_or(0) / 2;
    let first = ops::narrow(&vectors, 1, 0, width)?;
    let second = ops::narrow(&vectors, 1, width, width)?;
    let mut relevant = Vec::new();
    let mut numbers = Vec::new();
    for wanted in &known {
        match wanted {
            Wanted::Relevant { document, all } => relevant.push((*document, &all[..])),
            Wanted::Number(x) => numbers.push(*x),
            _ => return Err(Error::shape("loss", "an answer that vectors do not give")),
        }
    }
    let value = match (relevant.is_empty(), numbers.is_empty()) {
        (false, true) => in_batch(&first, &second, &relevant, temperature)?,
        (true, false) => in_order(&first, &second, &numbers, temperature)?,
        _ => return Err(Error::shape("loss", "documents and numbers in one task")),
    };
    Ok(Some((value, known.len())))
}

/// InfoNCE over the documents of the batch. `relevant`: for every row its document, and all that are relevant, ascending.
fn in_batch(
    queries: &Value,
    documents: &Value,
    relevant: &[(u32, &[u32])],
    temperature: f32,
) -> Result<Value> {
    let n = relevant.len();
    let scores = ops::linear(queries, documents, None)?;
    let mut scores = ops::scale(&scores, 1.0 / temperature)?;
    let mut mask = vec![0f32; n * n];
    for (i, (row, (own, all))) in mask.chunks_exact_mut(n).zip(relevant).enumerate() {
        for (j, (cell, (other, _))) in row.iter_mut().zip(relevant).enumerate() {
            if i != j && (other == own || all.binary_search(other).is_ok()) {
                *cell = NEVER;
            }
        }
    }
    if mask.iter().any(|x| *x != 0.0) {
        scores = ops::add(&scores, &Value::constant(tensor(mask, (n, n))?))?;
    }
    let labels: Vec<u32> = (0..n as u32).collect();
    ops::cross_entropy(&scores, &labels, 0.0)
}

/// CoSENT.
fn in_order(first: &Value, second: &Value, gold: &[f64], temperature: f32) -> Result<Value> {
    let width = first.dims().last().copied().unwrap_or(0);
    let ones = Value::constant(tensor(vec![1.0; width], (1, width))?);
    let cosines = ops::linear(&ops::mul(first, second)?, &ones, None)?;
    let (mut higher, mut lower) = (Vec::new(), Vec::new());
    for (i, a) in (0u32..).zip(gold) {
        for (j, b) in (0u32..).zip(gold) {
            if a > b {
                higher.push(i);
                lower.push(j);
            }
        }
    }
    if higher.is_empty() {
        // Nothing to tell apart in this batch; the graph stays whole.
        return ops::scale(&ops::mean(&cosines)?, 0.0);
    }
    let wrong = ops::sub(
        &ops::rows(&cosines, &lower)?,
        &ops::rows(&cosines, &higher)?,
    )?;
    let wrong = ops::scale(&ops::reshape(&wrong, &[1, lower.len()])?, 1.0 / temperature)?;
    let zero = Value::constant(tensor(vec![0.0], (1, 1))?);
    // log(1 + sum exp(x)) is the cross-entropy of the class with score 0 beside the scores x.
    ops::cross_entropy(&ops::concat(&[&zero, &wrong], 1)?, &[0], 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(values: &[f32]) -> Value {
        Value::leaf(tensor(values.to_vec(), (values.len() / 4, 4)).unwrap())
    }

    fn one(document: u32, all: &[u32]) -> Wanted {
        Wanted::Relevant {
            document,
            all: std::sync::Arc::new(all.to_vec()),
        }
    }

    fn number(vectors: &Value, wanted: &[&Wanted], temperature: f32) -> f32 {
        let wanted: Vec<_> = wanted.iter().map(|w| Some(*w)).collect();
        let (loss, n) = contrast(vectors, &wanted, temperature).unwrap().unwrap();
        assert_eq!(n, wanted.len());
        loss.number().unwrap()
    }

    /// Queries (1, 0) and (0, 1) with the documents (1, 0) and (0.6, 0.8).
    const TWO: [f32; 8] = [1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.6, 0.8];

    #[test]
    fn in_batch_negatives_by_hand() {
        let (a, b) = (one(0, &[0]), one(1, &[1]));
        // Scores over 0.5: [2, 1.2] and [0, 1.6].
        let by_hand = ((-0.8f32).exp().ln_1p() + (-1.6f32).exp().ln_1p()) / 2.0;
        assert!((number(&pairs(&TWO), &[&a, &b], 0.5) - by_hand).abs() < 1e-6);
        // The other document is relevant for the first query too: no negative.
        let a = one(0, &[0, 1]);
        let by_hand = (-1.6f32).exp().ln_1p() / 2.0;
        assert!((number(&pairs(&TWO), &[&a, &b], 0.5) - by_hand).abs() < 1e-6);
        // Both rows brought the same document.
        let b = one(0, &[0]);
        assert_eq!(number(&pairs(&TWO), &[&b, &b], 0.5), 0.0);
        assert_eq!(number(&pairs(&TWO[..4]), &[&b], 0.5), 0.0);
    }

    #[test]
    fn the_order_of_cosines_by_hand() {
        let (low, high) = (Wanted::Number(1.0), Wanted::Number(5.0));
        // Cosines 1 and 0.8 in the wrong order, then in the right one.
        let wrong = number(&pairs(&TWO), &[&low, &high], 0.5);
        assert!((wrong - 0.4f32.exp().ln_1p()).abs() < 1e-6);
        let right = number(&pairs(&TWO), &[&high, &low], 0.5);
        assert!((right - (-0.4f32).exp().ln_1p()).abs() < 1e-6);
        assert_eq!(number(&pairs(&TWO), &[&low, &low], 0.5), 0.0);
    }

    #[test]
    fn gradients_are_those_of_differences() {
        let wanted = [one(0, &[0, 2]), one(1, &[1]), one(2, &[0, 2])];
        let gold = [
            Wanted::Number(0.3),
            Wanted::Number(2.0),
            Wanted::Number(1.0),
        ];
        let start: Vec<f32> = (0..12).map(|i| ((i * 7 % 11) as f32 - 5.0) / 8.0).collect();
        for wanted in [&wanted, &gold] {
            let wanted: Vec<_> = wanted.iter().map(Some).collect();
            let of = |values: &[f32]| contrast(&pairs(values), &wanted, 0.3).unwrap().unwrap().0;
            let leaf = pairs(&start);
            let loss = contrast(&leaf, &wanted, 0.3).unwrap().unwrap().0;
            let found = loss.backward().unwrap();
            let found = crate::engine::slice(found.get(&leaf).unwrap()).unwrap();
            for i in 0..start.len() {
                let moved = |by: f32| {
                    let mut x = start.clone();
                    x[i] += by;
                    of(&x).number().unwrap()
                };
                let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
                assert!((slope - found[i]).abs() < 5e-3, "{i}: {slope} {}", found[i]);
            }
        }
    }

    #[test]
    fn what_is_neither_is_refused() {
        let (class, number) = (Wanted::Class(1), Wanted::Number(1.0));
        let document = one(0, &[0]);
        let of = |a, b| contrast(&pairs(&TWO), &[Some(a), Some(b)], 0.5);
        assert!(of(&class, &class).is_err() && of(&number, &document).is_err());
        assert!(
            contrast(&pairs(&TWO), &[None, None], 0.5)
                .unwrap()
                .is_none()
        );
    }
}
