//! Pictures of several sensors: which stem reads a task's, and what it is shown.

mod assign;

use indexmap::IndexMap;
use polyloom::evaluate::board::score::examples::Input;

pub(super) use self::assign::of_new;
use super::rows::Shown;
use crate::engine::{Value, tensor};
use crate::error::{Error, Result};
use crate::image::Preparation;
use crate::models::t3::{StemConfig, T3, sized, stem_for};

/// What shows pictures to the stems of a model: as they are, from -1 to 1.
#[derive(Debug, Clone)]
pub struct Sensors {
    stems: IndexMap<String, StemConfig>,
    /// Of every stem.
    prepared: Vec<Preparation>,
}

impl Sensors {
    /// Of a model.
    #[must_use]
    pub fn of(model: &T3) -> Self {
        let stems = model.config.stems.clone();
        let plain = |s: &StemConfig| Preparation::plain(s.image_size, s.num_channels);
        Self {
            prepared: stems.values().map(plain).collect(),
            stems,
        }
    }

    /// A picture of a task, or of none, as its stem takes it.
    ///
    /// # Errors
    /// No picture, and as [`stem_for`].
    pub fn show(&self, task: Option<&str>, input: &Input) -> Result<Shown> {
        let Input::Image { pixels, size } = input else {
            let what = "texts or rows, and the model is one of pictures";
            return Err(Error::shape("input", what));
        };
        let stem = stem_for(&self.stems, task, *size);
        let stem = stem.map_err(|what| Error::shape("input", what))?;
        let channels = size[2];
        if pixels.len() != size.iter().product::<usize>() {
            let what = format!("{} bytes for {}", pixels.len(), sized(*size));
            return Err(Error::shape("input", what));
        }
        let plane = |c: usize| pixels.iter().skip(c).step_by(channels).copied();
        Ok(Shown::Sensed(stem, (0..channels).flat_map(plane).collect()))
    }

    /// Height and width of the pictures of a stem; 0 of one that is none.
    #[must_use]
    pub fn side(&self, stem: usize) -> usize {
        self.prepared.get(stem).map_or(0, |p| p.size)
    }

    /// Pictures of one sensor as its stem takes them, `[images, channels, size, size]`, with the place of the stem.
    ///
    /// # Errors
    /// No pictures, or those of several sensors.
    pub fn pixels(&self, shown: &[&Shown]) -> Result<(usize, Value)> {
        let wrong = |what: &str| Error::shape("features", what);
        let Some(Shown::Sensed(stem, _)) = shown.first() else {
            return Err(wrong("no picture of a sensor"));
        };
        let of = self.prepared.get(*stem);
        let of = of.ok_or_else(|| wrong("a picture of a stem that is none"))?;
        let mut pixels = Vec::with_capacity(shown.len() * of.channels * of.size * of.size);
        for shown in shown {
            match shown {
                Shown::Sensed(other, planes) if other == stem => pixels.extend(of.values(planes)),
                _ => return Err(wrong("pictures of several sensors at once")),
            }
        }
        let shape = vec![shown.len(), of.channels, of.size, of.size];
        Ok((*stem, Value::constant(tensor(pixels, shape)?)))
    }
}
