//! Generated tasks with known truth: rendered scenes, an interaction log, tables of chosen relatedness, solved equations.
//!
//! They prove mechanisms (does joint training help where tasks share structure?), never quality in the world. A row is a
//! pure function of the options and its number, so nothing has to be stored: a spec with
//! `source = { kind = "synth", generator = "shapes", seed = 7, count = 12000 }` is read without files. Other options
//! stand in `source.options`.

pub mod fields;
pub mod log;
pub mod multitab;
pub mod random;
pub mod shapes;
mod specs;
mod table;
mod write;

use std::ops::Range;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::spec::Source;
use crate::error::MergeError;
use crate::suggest;

pub use table::{Part, Rows};
pub use write::{Written, write};

/// The generators, by name.
pub const NAMES: [&str; 4] = ["shapes", "log", "multitab", "fields"];
/// The splits that every generator has.
pub const SPLITS: [&str; 3] = ["train", "validation", "test"];

/// A generator with its options.
#[derive(Debug, Clone, PartialEq)]
pub enum Generator {
    /// Scenes with five targets.
    Shapes(shapes::Shapes),
    /// Impressions, clicks, carts, purchases.
    Log(log::Log),
    /// Tables with several targets.
    Multitab(multitab::Multitab),
    /// Two differential equations over sources and geometries.
    Fields(fields::Fields),
}

/// An option that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Its name: `generator`, `seed`, `count` or that of an option.
    pub option: String,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub hint: Option<String>,
}

impl Fault {
    fn new(option: &str, message: impl Into<String>) -> Self {
        Self {
            option: option.to_owned(),
            message: message.into(),
            hint: None,
        }
    }

    /// The key of a spec that it is about.
    #[must_use]
    pub fn path(&self) -> String {
        match &*self.option {
            "generator" | "seed" | "count" => format!("source.{}", self.option),
            option => format!("source.options.{option}"),
        }
    }
}

impl From<Fault> for MergeError {
    fn from(fault: Fault) -> Self {
        let error = Self::plan(
            "bad-option",
            format!("`{}`: {}", fault.path(), fault.message),
        );
        match fault.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

impl Generator {
    /// The generator of a source, with options in range.
    ///
    /// # Errors
    /// An unknown name or option, or a value out of range.
    pub fn of(source: &Source) -> Result<Self, Fault> {
        let generator = match &*source.generator {
            "shapes" => Self::Shapes(options(source)?),
            "log" => Self::Log(options(source)?),
            "multitab" => Self::Multitab(options(source)?),
            "fields" => Self::Fields(options(source)?),
            "" => return Err(unknown("generator", "is missing", "", &NAMES)),
            name => {
                let what = format!("unknown generator `{name}`");
                return Err(unknown("generator", &what, name, &NAMES));
            }
        };
        generator.check()?;
        Ok(generator)
    }

    /// The name in specs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Shapes(_) => NAMES[0],
            Self::Log(_) => NAMES[1],
            Self::Multitab(_) => NAMES[2],
            Self::Fields(_) => NAMES[3],
        }
    }

    /// Rows of all splits.
    #[must_use]
    pub fn count(&self) -> u64 {
        match self {
            Self::Shapes(o) => o.count,
            Self::Log(o) => o.count,
            Self::Multitab(o) => o.count,
            Self::Fields(o) => o.count,
        }
    }

    /// Seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        match self {
            Self::Shapes(o) => o.seed,
            Self::Log(o) => o.seed,
            Self::Multitab(o) => o.seed,
            Self::Fields(o) => o.seed,
        }
    }

    /// The rows of a split; `None` for a name that is none of [`SPLITS`].
    #[must_use]
    pub fn split(&self, name: &str) -> Option<Range<u64>> {
        let n = self.count();
        let (a, b) = match self {
            Self::Shapes(_) | Self::Fields(_) => (n * 10 / 12, n * 11 / 12),
            Self::Log(o) => (o.cut(8), o.cut(9)),
            Self::Multitab(_) => (n * 8 / 10, n * 9 / 10),
        };
        match name {
            "train" => Some(0..a),
            "validation" => Some(a..b),
            "test" => Some(b..n),
            _ => None,
        }
    }

    /// The source that gives this generator; options with their default are left out.
    #[must_use]
    pub fn source(&self) -> Source {
        let mut source = Source::new(super::spec::SourceKind::Synth, "");
        source.generator = self.name().to_owned();
        source.seed = Some(self.seed());
        source.count = Some(self.count());
        source.options = match self {
            Self::Shapes(o) => changed(o, &shapes::Shapes::default()),
            Self::Log(o) => changed(o, &log::Log::default()),
            Self::Multitab(o) => changed(o, &multitab::Multitab::default()),
            Self::Fields(o) => changed(o, &fields::Fields::default()),
        };
        source
    }

    /// Whether the options are in range.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check(&self) -> Result<(), Fault> {
        let rule = |fine: bool, option: &str, message: &str| {
            if fine {
                Ok(())
            } else {
                Err(Fault::new(option, message))
            }
        };
        let share = |x: f64| (0.0..=1.0).contains(&x);
        let size = |x: f64| x.is_finite() && x >= 0.0;
        rule(self.seed() < 1 << 16, "seed", "must be below 65536")?;
        match self {
            Self::Shapes(o) => {
                rule(
                    (12..=100_000_000).contains(&o.count),
                    "count",
                    "must be between 12 and 100000000",
                )?;
                rule(share(o.missing), "missing", "must be between 0 and 1")?;
                rule(size(o.noise), "noise", "must be a number of at least 0")
            }
            Self::Fields(o) => rule(
                (12..=100_000_000).contains(&o.count),
                "count",
                "must be between 12 and 100000000",
            ),
            Self::Log(o) => {
                rule(
                    (80..=1_000_000_000).contains(&o.count),
                    "count",
                    "must be between 80 and 1000000000",
                )?;
                rule(
                    (1..=100_000_000).contains(&o.users),
                    "users",
                    "must be between 1 and 100000000",
                )?;
                rule(
                    o.items >= 20 && o.items <= 100_000_000 && o.items.is_multiple_of(20),
                    "items",
                    "must be a multiple of 20, at most 100000000",
                )?;
                rule(size(o.bias), "bias", "must be a number of at least 0")
            }
            Self::Multitab(o) => {
                rule(
                    (10..=100_000_000).contains(&o.count),
                    "count",
                    "must be between 10 and 100000000",
                )?;
                rule(
                    (1..=4096).contains(&o.features),
                    "features",
                    "must be between 1 and 4096",
                )?;
                rule(o.tasks >= 1, "tasks", "must be at least 1")?;
                rule(
                    o.outliers <= o.tasks,
                    "outliers",
                    "must be at most the number of tasks",
                )?;
                rule(
                    o.tasks.saturating_add(o.outliers) <= o.features,
                    "features",
                    "must be at least tasks + outliers: their directions are orthogonal",
                )?;
                let least = if o.tasks > 1 {
                    -1.0 / (o.tasks - 1) as f64
                } else {
                    -1.0
                };
                rule(
                    o.correlation > least && o.correlation <= 1.0,
                    "correlation",
                    &format!("must be above {least:.4} for {} tasks, at most 1", o.tasks),
                )?;
                rule(
                    !o.degrees.is_empty() && o.degrees.iter().all(|d| (1..=8).contains(d)),
                    "degrees",
                    "must be numbers from 1 to 8",
                )?;
                rule(share(o.missing), "missing", "must be between 0 and 1")?;
                rule(size(o.noise), "noise", "must be a number of at least 0")
            }
        }
    }
}

fn unknown(option: &str, message: &str, given: &str, names: &[&str]) -> Fault {
    let near = suggest::nearest(given, names, 1);
    Fault {
        hint: Some(match near.first() {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("one of: {}", names.join(", ")),
        }),
        ..Fault::new(option, message)
    }
}

fn keys<T: Serialize>(options: &T) -> Map<String, Value> {
    match serde_json::to_value(options) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// Defaults, overwritten one by one so that a wrong value is found by name.
fn options<T: Serialize + DeserializeOwned + Default>(source: &Source) -> Result<T, Fault> {
    let mut all = keys(&T::default());
    let known: Vec<String> = all.keys().cloned().collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let known = &known[2..]; // without seed and count
    let seed = source.seed.map(|s| ("seed", Value::from(s)));
    let count = source.count.map(|c| ("count", Value::from(c)));
    let others = source.options.iter();
    let mut options = T::default();
    for (name, value) in seed
        .into_iter()
        .chain(count)
        .chain(others.map(|(n, v)| (&**n, v.clone())))
    {
        let top = name == "seed" || name == "count";
        if !known.contains(&name) && !top {
            return Err(unknown(
                name,
                &format!("the generator `{}` has no such option", source.generator),
                name,
                known,
            ));
        }
        if top && source.options.contains_key(name) {
            let what = format!("stands in `source`, as `source.{name}`");
            return Err(Fault {
                option: name.to_owned(),
                message: what,
                hint: None,
            });
        }
        all.insert(name.to_owned(), value);
        options = serde_json::from_value(Value::Object(all.clone()))
            .map_err(|e| Fault::new(name, e.to_string()))?;
    }
    Ok(options)
}

fn changed<T: Serialize>(options: &T, default: &T) -> Map<String, Value> {
    let default = keys(default);
    let mut map = keys(options);
    map.retain(|k, v| k != "seed" && k != "count" && default.get(k) != Some(v));
    map
}

#[cfg(test)]
mod tests;
