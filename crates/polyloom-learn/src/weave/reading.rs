//! The vectors that the router of a woven model reads, of inputs as heads are shown them.

use crate::error::Result;
use crate::models::Source;
use crate::models::open::Model;
use crate::route::{Points, Tap, tap};
use crate::tasks::{Reader, Shown};

/// Features of some inputs at a tap; of two texts that are read each on its own, the mean of both.
///
/// # Errors
/// A feature or a layer that the model does not have, inputs that it does not take.
pub fn read(
    model: &Model,
    source: &dyn Source,
    reader: &Reader,
    shown: &[&Shown],
    tap: Tap,
) -> Result<Points> {
    let mut halves = [Vec::new(), Vec::new()];
    for shown in shown {
        if let Shown::Two(two) = shown {
            for (half, one) in halves.iter_mut().zip(&**two) {
                half.push(Shown::One(one.clone()));
            }
        }
    }
    if halves[0].len() < shown.len() {
        return tap::read(model, source, reader, tap, shown);
    }
    let [first, second] = halves.map(|half| {
        let half: Vec<&Shown> = half.iter().collect();
        tap::read(model, source, reader, tap, &half)
    });
    let (mut first, second) = (first?, second?);
    for (a, b) in first.values.iter_mut().zip(second.values) {
        *a = (*a + b) / 2.0;
    }
    Ok(first)
}
