//! Features of pictures of several sensors.

use crate::engine::Value;
use crate::error::{Error, Result};
use crate::models::Source;
use crate::models::open::Model;
use crate::ops;
use crate::tasks::Feature;
use crate::tasks::rows::Shown;
use crate::tasks::sensors::Sensors;

/// Class tokens of the pictures of parts, `[inputs, width]` each. Pictures of one sensor pass together, whatever parts they
/// are of; the sensors one after the other.
///
/// # Errors
/// Another feature than the class token, inputs that are no pictures of a sensor, another model.
pub(super) fn features(
    model: &Model,
    source: &dyn Source,
    sensors: &Sensors,
    parts: &[(Feature, Vec<&Shown>)],
) -> Result<Vec<Value>> {
    let wrong = |what: String| Error::shape("features", what);
    let Some(of) = model.sensors() else {
        return Err(wrong("pictures of sensors for another model".into()));
    };
    if let Some((feature, _)) = parts.iter().find(|(f, _)| *f != Feature::Cls) {
        let word = feature.word();
        let what = format!("the feature `{word}` of pictures of sensors; they have `cls`");
        return Err(wrong(what));
    }
    let shown: Vec<&Shown> = parts.iter().flat_map(|(_, s)| s).copied().collect();
    let stem = |place: &usize| match shown[*place] {
        Shown::Sensed(stem, _) => Some(*stem),
        _ => None,
    };
    let mut order: Vec<usize> = (0..shown.len()).collect();
    order.sort_by_key(stem);
    let mut seen = Vec::new();
    for together in order.chunk_by(|a, b| stem(a) == stem(b)) {
        let pictures: Vec<&Shown> = together.iter().map(|place| shown[*place]).collect();
        let (stem, pixels) = sensors.pixels(&pictures)?;
        seen.push(of.look(source, stem, &pixels)?);
    }
    let all = match &seen[..] {
        [] => return Err(wrong("no pictures".into())),
        [one] => one.clone(),
        several => ops::concat(&several.iter().collect::<Vec<_>>(), 0)?,
    };
    // Where every picture went.
    let mut at = vec![0u32; order.len()];
    for (row, place) in (0u32..).zip(&order) {
        at[*place] = row;
    }
    let mut places = at.into_iter();
    let own = |(_, shown): &(Feature, Vec<&Shown>)| {
        let rows: Vec<u32> = places.by_ref().take(shown.len()).collect();
        ops::rows(&all, &rows)
    };
    parts.iter().map(own).collect()
}
