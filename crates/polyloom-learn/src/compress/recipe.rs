//! `[compress]` of a recipe: what is tried, on which rows.

use std::path::{Path, PathBuf};

use polyloom::MergeError;
use polyloom::compress::lowrank::Axis;
use polyloom_core::DType;
use serde::{Deserialize, Serialize};

type Result<T> = std::result::Result<T, MergeError>;

/// How deltas are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// One shared vector, a bit per parameter and task (TALL masks).
    Tall,
    /// One unified vector, a bit per parameter and a scale per task (EMR).
    Emr,
    /// One shared vector, a bit for the largest changes of a task.
    MagnitudeMask,
    /// Factors of every matrix, as many as a number of bytes buys.
    Lowrank,
    /// A sign per parameter, a scale per matrix or row (BitDelta).
    Bits,
    /// A few entries that take the expert's numbers.
    Graft,
}

impl Method {
    /// As it is written.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Tall => "tall",
            Self::Emr => "emr",
            Self::MagnitudeMask => "magnitude_mask",
            Self::Lowrank => "lowrank",
            Self::Bits => "bits",
            Self::Graft => "graft",
        }
    }

    /// Of a word.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        serde_json::from_value(word.into()).ok()
    }

    /// Whether tasks share a vector.
    #[must_use]
    pub fn is_masks(self) -> bool {
        matches!(self, Self::Tall | Self::Emr | Self::MagnitudeMask)
    }
}

/// What shares a scale of one-bit deltas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScaleOf {
    /// A tensor.
    #[default]
    Tensor,
    /// A row of it.
    Row,
}

/// `[compress]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Compress {
    /// How deltas are stored; without it the method of `[merge]`.
    pub method: Option<Method>,
    /// Type of shared vectors and factors.
    pub store: Option<String>,
    /// Thresholds that are tried for every task of TALL.
    pub lambdas: Option<Vec<f64>>,
    /// Bytes of the bundle's deltas at most, such as `"2MB"`.
    pub budget: Option<String>,
    /// Share of the experts' scores that is kept at least, 0 to 1.
    pub keep: Option<f64>,
    /// With `keep`: the lower end of the 95 % interval keeps it, not the score alone.
    pub sure: bool,
    /// What is tried when methods are compared.
    pub methods: Vec<Method>,
    /// What shares an importance in weighted factors (where experts have `stats`).
    pub axis: Axis,
    /// Smallest importance.
    pub floor: f64,
    /// What shares a scale of one-bit deltas.
    pub scale: ScaleOf,
    /// Share of the weights that is grafted.
    pub density: f64,
    /// Learn which entries are grafted.
    pub learned: bool,
    /// Passes over the rows that a graft is learned on, at most.
    pub passes: u32,
    /// Batches of a pass.
    pub batches: usize,
    /// Rows of a batch.
    pub batch: usize,
    /// Rate of a graft's logits: the largest step of a pass, in units of the logits.
    pub rate: f64,
    /// Bias of the logits: entries flip at `sigmoid(S - bias)` above one half.
    pub mask_bias: f64,
    /// Folder of heads; else they lie beside the experts.
    pub heads: Option<PathBuf>,
    /// Preparation of pictures, where the base's folder has none.
    pub preprocessor: Option<PathBuf>,
    /// Split that decides.
    pub split: String,
    /// Split that grafts are learned on.
    pub train: String,
    /// Rows of each task at most.
    pub limit: Option<usize>,
    /// Tokens of a text at most.
    pub max_length: Option<usize>,
    /// Seed of what is random.
    pub seed: u64,
}

impl Default for Compress {
    fn default() -> Self {
        Self {
            method: None,
            store: None,
            lambdas: None,
            budget: None,
            keep: None,
            sure: false,
            methods: Vec::new(),
            axis: Axis::Input,
            floor: 1e-8,
            scale: ScaleOf::Tensor,
            density: 0.01,
            learned: false,
            passes: 20,
            batches: 16,
            batch: 32,
            rate: 1.0,
            mask_bias: 10.0,
            heads: None,
            preprocessor: None,
            split: "validation".into(),
            train: "train".into(),
            limit: None,
            max_length: None,
            seed: 0,
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct File {
    compress: Option<Compress>,
}

impl Compress {
    /// Reads the table of a `loom.toml`, with keys set from outside (`compress.budget`, `2MB`), which count more; `None`
    /// where there is neither. The other tables are left to the reader of merges.
    ///
    /// # Errors
    /// No TOML, keys or words that are not known (with line and column), values that cannot be.
    pub fn read(text: &str, place: &str, set: &[(String, String)]) -> Result<Option<Self>> {
        let file: File = crate::recipe::read(text, place, set)?;
        if let Some(found) = &file.compress {
            found.check().map_err(|e| e.at(place))?;
        }
        Ok(file.compress)
    }

    /// Reads a file; relative paths are tried beside it first.
    ///
    /// # Errors
    /// As [`Self::read`], and a file that cannot be read.
    pub fn open(path: &Path, set: &[(String, String)]) -> Result<Option<Self>> {
        let text =
            std::fs::read_to_string(path).map_err(|e| polyloom_core::Error::io(path, "read", e))?;
        let Some(mut found) = Self::read(&text, &path.display().to_string(), set)? else {
            return Ok(None);
        };
        let beside = |given: &str| crate::recipe::beside(path, given);
        for file in [&mut found.heads, &mut found.preprocessor]
            .into_iter()
            .flatten()
        {
            *file = beside(&file.display().to_string())?.into();
        }
        Ok(Some(found))
    }

    fn check(&self) -> Result<()> {
        let bad = |what: &str| Err(MergeError::plan("bad-recipe", what));
        let share = |x: f64| x > 0.0 && x <= 1.0;
        if self.keep.is_some_and(|k| !share(k)) {
            return bad("`compress.keep` must be above 0 and at most 1 (99 % is 0.99)");
        }
        if self.sure && self.keep.is_none() {
            return bad("`compress.sure` is about `compress.keep`");
        }
        if !share(self.density) {
            return bad("`compress.density` must be above 0 and at most 1");
        }
        if !(self.floor > 0.0 && self.floor.is_finite()) {
            return bad(
                "`compress.floor` must be above 0: an importance of 0 cannot be divided out",
            );
        }
        let grid = self.lambdas.iter().flatten();
        if grid.clone().any(|l| !(*l >= 0.0 && l.is_finite())) {
            return bad("`compress.lambdas` must be numbers of at least 0");
        }
        if self.passes == 0 || self.batches == 0 || self.batch == 0 || self.limit == Some(0) {
            return bad("`compress.passes`, `batches`, `batch` and `limit` must be at least 1");
        }
        if !(self.rate > 0.0 && self.rate.is_finite() && self.mask_bias.is_finite()) {
            return bad("`compress.rate` must be above 0, `compress.mask_bias` a number");
        }
        self.dtype()?;
        Ok(())
    }

    /// Type of shared vectors and factors, where it is given.
    ///
    /// # Errors
    /// A word that is none of them.
    pub fn dtype(&self) -> Result<Option<DType>> {
        let found = crate::recipe::dtype(self.store.as_deref(), "compress.store")?;
        match found {
            Some(d) if !matches!(d, DType::F32 | DType::F16 | DType::BF16) => {
                let what = format!("`compress.store`: `{d}` is no type of a shared vector");
                Err(MergeError::plan("bad-recipe", what).hint("one of f32, f16, bf16"))
            }
            found => Ok(found),
        }
    }

    /// Thresholds of TALL that are tried: 0.2 to 0.6, as in the paper.
    #[must_use]
    pub fn grid(&self) -> Vec<f64> {
        match &self.lambdas {
            Some(given) => given.clone(),
            None => vec![0.2, 0.3, 0.4, 0.5, 0.6],
        }
    }

    /// Methods that are compared: those named, else all that need no training.
    #[must_use]
    pub fn tried(&self) -> Vec<Method> {
        if !self.methods.is_empty() {
            return self.methods.clone();
        }
        vec![
            Method::Tall,
            Method::Emr,
            Method::Lowrank,
            Method::Bits,
            Method::Graft,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_alone_is_read() {
        let text = "version = 1\n[base]\npath = \"b\"\n[merge]\nmethod = \"tall\"\n[compress]\nstore = \"f16\"\n";
        let set = [("compress.keep".to_owned(), "0.99".to_owned())];
        let found = Compress::read(text, "f", &set).unwrap().unwrap();
        assert_eq!(
            (found.store.as_deref(), found.keep),
            (Some("f16"), Some(0.99))
        );
        assert_eq!(found.grid(), [0.2, 0.3, 0.4, 0.5, 0.6]);
        assert!(Compress::read("[base]\n", "f", &[]).unwrap().is_none());
        let wrong = |extra: &str| {
            let text = format!("[compress]\n{extra}\n");
            Compress::read(&text, "f", &[]).unwrap_err().to_string()
        };
        assert!(wrong("buget = \"2MB\"").contains("f:2:1"));
        assert!(wrong("keep = 99").contains("0.99"));
        assert!(wrong("store = \"f64\"").to_lowercase().contains("f64"));
        assert!(wrong("method = \"zip\"").contains("zip"));
    }

    #[test]
    fn the_guide_has_every_key() {
        let page = include_str!("../../../../docs/reference/compressing.md");
        let all = serde_json::to_value(Compress::default()).unwrap();
        for key in all.as_object().unwrap().keys() {
            assert!(
                page.contains(&format!("`{key}`")),
                "docs/reference/compressing.md lacks `{key}`"
            );
        }
    }
}
