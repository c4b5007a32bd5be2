//! Heads of maps: the token of a patch says the values of its pixels.
//!
//! A linear layer makes of every patch token of a vision transformer `patch x patch x channels` numbers, and these are laid
//! out as the picture. Dense prediction transformers (Ranftl et al. 2021) reassemble tokens of several depths by convolutions;
//! this is their last step alone, so all that pixels of different patches tell each other passes the trunk.

use polyloom::MergeError;
use polyloom::evaluate::board::score::examples::{Asked, Pixels};

use super::{Feature, Head, HeadKind};
use crate::engine::{Value, tensor};
use crate::error::{Error, Result};
use crate::models::open::{Model, Trunk};
use crate::ops::{self, Activation};
use crate::tasks::forward::Output;

/// Values that a head says of a pixel before they become an answer: a score of every class, a depth, three parts of a normal,
/// a score of "edge". 1 for heads of no maps.
pub(crate) fn channels(kind: HeadKind, labels: &[String]) -> usize {
    match kind {
        HeadKind::Dense(Pixels::Classes) => labels.len(),
        HeadKind::Dense(pixels) => pixels.values(),
        _ => 1,
    }
}

/// Side of the patch that so many outputs are the pixels of.
pub(super) fn patch_of(kind: HeadKind, labels: &[String], outputs: usize) -> Option<usize> {
    let each = channels(kind, labels);
    let pixels = (each > 0 && outputs.is_multiple_of(each)).then(|| outputs / each)?;
    Some(pixels.isqrt()).filter(|side| side * side == pixels && pixels > 0)
}

/// Sides of patch and picture of a model whose tokens heads of maps read.
///
/// # Errors
/// Any but a vision transformer whose patches fill the picture, and an operator network.
pub(crate) fn sides(model: &Model, task: &str) -> Result<[usize; 2]> {
    let no = |what: String, hint: &str| {
        let error = MergeError::plan("no-model-task", what).at(model.folder.display().to_string());
        Err(error.hint(hint).into())
    };
    let (patch, side) = match &model.trunk {
        Trunk::Vit(vit) => (vit.config.patch_size, vit.config.image_size),
        Trunk::DeepOnet(net) => (1, net.config.image_size),
        _ => {
            return no(
                format!("has no patches, which a value per pixel of task `{task}` is learned from"),
                "a vision transformer: model_type = \"vit\"",
            );
        }
    };
    if !side.is_multiple_of(patch) {
        return no(
            format!("has patches of {patch} pixels in pictures of {side}: some pixels are in none"),
            "patch_size must divide image_size",
        );
    }
    Ok([patch, side])
}

impl HeadKind {
    /// The kind of maps of a word in files.
    pub(super) fn of_map(word: &str) -> Option<Self> {
        let all = [
            Pixels::Classes,
            Pixels::Depth,
            Pixels::Normals,
            Pixels::Edges,
        ];
        all.map(Self::Dense).into_iter().find(|k| k.word() == word)
    }
}

impl Head {
    /// A head of maps with one layer of zeros for patches of `patch x patch` pixels. Normals begin with (0, 0, 1), a flat
    /// surface: the angle of a vector without a length has no gradient.
    ///
    /// # Errors
    /// Never in practice: lengths that fit.
    pub fn dense(
        task: &str,
        pixels: Pixels,
        labels: Vec<String>,
        hidden: usize,
        patch: usize,
    ) -> Result<Self> {
        let kind = HeadKind::Dense(pixels);
        let out = patch * patch * channels(kind, &labels);
        let up = |i: usize| f32::from(u8::from(pixels == Pixels::Normals && i % 3 == 2));
        Ok(Self {
            task: task.to_owned(),
            feature: Feature::Patches,
            goal: 0,
            groups: Vec::new(),
            kind,
            labels,
            task_hash: None,
            layers: vec![(
                tensor(vec![0.0; out * hidden], (out, hidden))?,
                tensor((0..out).map(up).collect(), out)?,
            )],
            activation: Activation::Relu,
            scale: [0.0, 1.0],
            positive: 1.0,
            calibration: None,
        })
    }
}

/// What a head reads of features: of all tokens `[n, 1 + patches, width]` those of the patches or the class token; of others
/// all.
pub(super) fn tokens(head: &Head, features: &Value) -> Result<Value> {
    match (head.feature, features.dims()) {
        (Feature::Patches, &[_, tokens, _]) if tokens > 1 => {
            ops::narrow(features, 1, 1, tokens - 1)
        }
        (Feature::Cls, &[n, _, width]) => {
            ops::reshape(&ops::narrow(features, 1, 0, 1)?, &[n, width])
        }
        (Feature::Patches, other) => Err(Error::shape(
            "head",
            format!("features {other:?} for a map, not [pictures, tokens, width]"),
        )),
        _ => Ok(features.clone()),
    }
}

/// Outputs of patches `[n, patches, side * side * channels]` as maps `[n, pixels * channels]`. Patches lie row by row, as many
/// rows as columns; so do the pixels of a patch, each with its channels side by side.
///
/// # Errors
/// Patches that make no square.
pub(super) fn unfold(x: &Value, channels: usize) -> Result<Value> {
    let wrong = || Error::shape("map", format!("{:?} with {channels} a pixel", x.dims()));
    let &[n, patches, out] = x.dims() else {
        return Err(wrong());
    };
    let (grid, side) = (patches.isqrt(), (out / channels.max(1)).isqrt());
    if grid * grid != patches || side * side * channels != out || channels == 0 {
        return Err(wrong());
    }
    let width = grid * side;
    let mut order = Vec::with_capacity(n * width * width);
    for picture in 0..n {
        for pixel in 0..width * width {
            let (row, column) = (pixel / width, pixel % width);
            let patch = picture * patches + row / side * grid + column / side;
            order.push((patch * side * side + row % side * side + column % side) as u32);
        }
    }
    let pixels = ops::reshape(x, &[n * patches * side * side, channels])?;
    ops::reshape(&ops::rows(&pixels, &order)?, &[n, width * width * channels])
}

/// What a head of maps says of a picture, from its outputs: the likeliest class of every pixel (of equals the first), depths in
/// their unit, normals of length 1, probabilities of an edge.
pub(crate) fn said(head: &Head, pixels: Pixels, mut row: Output) -> Output {
    match pixels {
        Pixels::Classes => {
            let classes = head.labels.len().max(1);
            let class = |scores: &[f32]| crate::tasks::answers::largest(scores) as f32;
            return row.chunks_exact(classes).map(class).collect();
        }
        Pixels::Depth => {
            let [mean, deviation] = head.scale;
            row.iter_mut()
                .for_each(|x| *x = (f64::from(*x) * deviation + mean) as f32);
        }
        Pixels::Normals => {
            for normal in row.chunks_exact_mut(3) {
                let square = |x: &f32| f64::from(*x) * f64::from(*x);
                let length = normal.iter().map(square).sum::<f64>().sqrt();
                if length > 0.0 {
                    normal
                        .iter_mut()
                        .for_each(|x| *x = (f64::from(*x) / length) as f32);
                }
            }
        }
        Pixels::Edges => row.iter_mut().for_each(|x| *x = 1.0 / (1.0 + (-*x).exp())),
    }
    row
}

/// A map as the bytes that the board reads: a class or an edge (above one half) a byte, depths and normals as `f32`. `None` where
/// a value is not finite.
pub(crate) fn bytes(pixels: Pixels, said: &[f32]) -> Option<Vec<u8>> {
    if said.iter().any(|x| !x.is_finite()) {
        return None;
    }
    Some(match pixels {
        Pixels::Classes => said.iter().map(|x| *x as u8).collect(),
        Pixels::Edges => said.iter().map(|x| u8::from(*x > 0.5)).collect(),
        Pixels::Depth | Pixels::Normals => said.iter().flat_map(|x| x.to_le_bytes()).collect(),
    })
}

/// Whether a head of maps fits a model and what is asked.
///
/// # Errors
/// Classes of other names or in another order, patches of another size; the error names both sides.
pub(crate) fn fit(head: &Head, asked: &Asked, model: &Model, place: &str) -> Result<()> {
    let [patch, _] = sides(model, &head.task)?;
    let bad = |what: String| MergeError::plan("head-differs", what).at(place.to_owned());
    let own = patch_of(head.kind, &head.labels, head.outputs());
    if own != Some(patch) {
        let what = format!(
            "says {} numbers of a patch, which has {patch} x {patch} pixels of {} in {}",
            head.outputs(),
            channels(head.kind, &head.labels),
            model.folder.display()
        );
        return Err(bad(what).hint("the head was made for another trunk").into());
    }
    let classes = head.kind == HeadKind::Dense(Pixels::Classes);
    if classes && !asked.classes.is_empty() && head.labels != asked.classes {
        let what = format!(
            "tells apart {}; the task has {}, in this order",
            head.labels.join(", "),
            asked.classes.join(", ")
        );
        return Err(bad(what)
            .hint("--heads DIR names a folder of other heads")
            .into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::slice;

    #[test]
    fn patches_become_a_picture() {
        // Two pictures of 2 x 2 patches of 2 x 2 pixels with two channels: number = patch * 100 + pixel * 10 + channel.
        let value = |i: usize| (i / 8 * 100 + i / 2 % 4 * 10 + i % 2) as f32;
        let x = Value::leaf(tensor((0..64).map(value).collect(), (2, 4, 8)).unwrap());
        let y = unfold(&x, 2).unwrap();
        assert_eq!(y.dims(), [2, 32]);
        let pixels = slice(y.data()).unwrap().to_vec();
        let rows = [
            [0.0, 10.0, 100.0, 110.0],
            [20.0, 30.0, 120.0, 130.0],
            [200.0, 210.0, 300.0, 310.0],
            [220.0, 230.0, 320.0, 330.0],
        ];
        for (i, expected) in rows.concat().into_iter().enumerate() {
            assert_eq!(pixels[2 * i..2 * i + 2], [expected, expected + 1.0]);
            assert_eq!(pixels[32 + 2 * i], expected + 400.0);
        }
        // Every number goes back to where it came from.
        let weights: Vec<f32> = (0..64).map(|i| i as f32).collect();
        let weights = Value::constant(tensor(weights, (2, 32)).unwrap());
        let loss = ops::sum(&ops::mul(&y, &weights).unwrap()).unwrap();
        let gradients = loss.backward().unwrap();
        let found = slice(gradients.get(&x).unwrap()).unwrap().to_vec();
        for (i, at) in pixels.iter().enumerate() {
            let from = (0..64).find(|j| value(*j) == *at).unwrap();
            assert_eq!(found[from], i as f32);
        }
        assert!(unfold(&x, 3).is_err());
    }

    #[test]
    fn said_by_hand() {
        let labels = vec!["a".to_owned(), "b".to_owned()];
        let mut head = Head::dense("t", Pixels::Classes, labels, 3, 2).unwrap();
        assert_eq!((head.inputs(), head.outputs()), (3, 8));
        let classes = said(&head, Pixels::Classes, vec![0.0, 1.0, 2.0, 2.0]);
        assert_eq!(classes, [1.0, 0.0]);
        assert_eq!(bytes(Pixels::Classes, &classes), Some(vec![1, 0]));
        head.scale = [10.0, 2.0];
        assert_eq!(said(&head, Pixels::Depth, vec![-1.0, 0.5]), [8.0, 11.0]);
        let normals = said(&head, Pixels::Normals, vec![3.0, 0.0, 4.0, 0.0, 0.0, 0.0]);
        assert_eq!(normals, [0.6, 0.0, 0.8, 0.0, 0.0, 0.0]);
        let edges = said(&head, Pixels::Edges, vec![-1.0, 0.0, 1.0]);
        assert_eq!(bytes(Pixels::Edges, &edges), Some(vec![0, 0, 1]));
        assert_eq!(bytes(Pixels::Depth, &[f32::NAN]), None);
        let flat = Head::dense("t", Pixels::Normals, Vec::new(), 2, 1).unwrap();
        assert_eq!(*slice(&flat.layers[0].1).unwrap(), [0.0, 0.0, 1.0]);
    }
}
