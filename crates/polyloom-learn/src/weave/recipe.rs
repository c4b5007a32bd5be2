//! What a recipe says of a woven model: `[weave]` of a `loom.toml`, beside `[base]` and `[[expert]]`.

use std::path::{Path, PathBuf};

use polyloom::MergeError;
use polyloom_core::DType;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::meta::{Method, is_plain};
use super::part::Compression;
use crate::route::{self, Fit, MlpFit, Reduce, Similarity, Tap};
use crate::tune::recipe::Expert;

type Result<T> = std::result::Result<T, MergeError>;

/// `[weave]`. What is not given depends on the method; the functions of [`Recipe`] say what counts.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Weave {
    /// How the parts act.
    pub method: Method,
    /// The shared model: the base and this much of every expert (task arithmetic).
    pub lambda: f64,
    /// The shared model, in place of task arithmetic: a folder, such as another merge of the same experts.
    pub shared: Option<String>,
    /// How parts are made small.
    pub compression: Compression,
    /// Share of a part that stays: of its singular triples, or of its entries.
    pub density: Option<f64>,
    /// Share that goes, in place of `density`.
    pub mask_rate: Option<f64>,
    /// Singular triples that stay at most, in place of a share.
    pub rank: Option<usize>,
    /// Singular vectors of an expert that find its tokens (SMILE).
    pub gate_rank: usize,
    /// Experts of a token (SMILE).
    pub top: usize,
    /// Steps of the mixers (WEMoE).
    #[serde(alias = "max_steps")]
    pub steps: u32,
    /// Their learning rate.
    #[serde(alias = "lr", alias = "learning_rate")]
    pub rate: f64,
    /// Rows of each task in a step.
    pub batch: usize,
    /// Split whose inputs the mixers see.
    pub split: String,
    /// Rows of a task at most, of that split.
    pub limit: Option<usize>,
    /// Tokens of a text at most.
    pub max_length: Option<usize>,
    /// Folder of the heads; each expert's own where none is named.
    pub heads: Option<PathBuf>,
    /// How pictures are prepared, where the base's folder has no `preprocessor_config.json`: such a file.
    pub preprocessor: Option<PathBuf>,
    /// Type of shared vector and parts; that of the base where none is named.
    pub dtype: Option<String>,
    /// What chooses expert and head.
    pub router: RouterRecipe,
}

impl Default for Weave {
    fn default() -> Self {
        Self {
            method: Method::default(),
            lambda: 0.3,
            shared: None,
            compression: Compression::default(),
            density: None,
            mask_rate: None,
            rank: None,
            gate_rank: 1,
            top: 1,
            steps: 1000,
            rate: 1e-4,
            batch: 16,
            split: "validation".into(),
            limit: None,
            max_length: None,
            heads: None,
            preprocessor: None,
            dtype: None,
            router: RouterRecipe::default(),
        }
    }
}

/// How the router decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RouterMethod {
    /// Twin-Merging's two hidden layers.
    #[default]
    Mlp,
    /// Logistic regression.
    Linear,
    /// The nearest mean.
    Centroid,
    /// The nearest examples.
    Knn,
    /// The nearest of some centres of every expert's examples.
    Pilots,
}

/// `[weave.router]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouterRecipe {
    /// How it decides.
    pub method: RouterMethod,
    /// What it reads: "mean" (tokens of the last hidden state), "cls", "layer:K".
    pub feature: Option<String>,
    /// Split of its examples.
    pub split: String,
    /// Examples of a task at most.
    #[serde(alias = "max_per_task")]
    pub limit: usize,
    /// Experts that get a weight at most; all where none is given.
    pub top: Option<usize>,
    /// Weights are whole multiples of one over this; exact where it is 0.
    pub levels: u32,
    /// Width of hidden layers; twice that of the features where none is given.
    pub hidden: Option<usize>,
    /// Passes over the examples.
    pub epochs: u32,
    /// Learning rate.
    #[serde(alias = "lr", alias = "learning_rate")]
    pub rate: f64,
    /// Examples of a step.
    pub batch: usize,
    /// Share of hidden values that a step leaves out.
    pub dropout: f64,
    /// Neighbours that vote ("knn"), centres of an expert ("pilots").
    pub k: Option<usize>,
    /// Divides cosines ("centroid", "knn", "pilots").
    pub temperature: Option<f64>,
}

impl Default for RouterRecipe {
    fn default() -> Self {
        Self {
            method: RouterMethod::default(),
            feature: None,
            split: "train".into(),
            limit: 5500,
            top: None,
            levels: 16,
            hidden: None,
            epochs: 50,
            rate: 5e-4,
            batch: 1024,
            dropout: 0.5,
            k: None,
            temperature: None,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Base {
    path: Option<String>,
    stats: Option<IgnoredAny>,
}

/// A whole file; tables of other commands are left to them.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    version: Option<i64>,
    name: Option<String>,
    seed: u64,
    base: Base,
    expert: Vec<Expert>,
    weave: Weave,
    tune: Option<IgnoredAny>,
    train: Option<IgnoredAny>,
    merge: Option<IgnoredAny>,
    eval: Option<IgnoredAny>,
    compress: Option<IgnoredAny>,
    route: Option<IgnoredAny>,
    serve: Option<IgnoredAny>,
    tasks: Option<IgnoredAny>,
    model: Option<IgnoredAny>,
    slice: Option<IgnoredAny>,
    tokenizer: Option<IgnoredAny>,
    chat_template: Option<IgnoredAny>,
}

/// A recipe for a woven model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recipe {
    /// Its name.
    pub name: Option<String>,
    /// Seed of all that is random.
    pub seed: u64,
    /// The base.
    pub base: String,
    /// Experts, in the order of the router's weights.
    pub experts: Vec<Expert>,
    /// The rest.
    pub weave: Weave,
}

/// Whether the text of a recipe has a table `[weave]`.
#[must_use]
pub fn is_woven(text: &str) -> bool {
    let table: std::result::Result<toml::Table, _> = toml::from_str(text);
    table.is_ok_and(|t| t.contains_key("weave"))
}

impl Recipe {
    /// Reads a `loom.toml`, with keys set from outside (`weave.rank`, `8`), which count more.
    ///
    /// # Errors
    /// No TOML, keys or words that are not known (with line and column), values that cannot be.
    pub fn read(text: &str, place: &str, set: &[(String, String)]) -> Result<Self> {
        let file: File = crate::recipe::read(text, place, set)?;
        crate::recipe::version(file.version, place)?;
        let Some(base) = file.base.path else {
            return Err(MergeError::plan("bad-recipe", "names no base")
                .at(place)
                .hint("[base] path = \"...\" or --base MODEL"));
        };
        let recipe = Self {
            name: file.name,
            seed: file.seed,
            base,
            experts: file.expert,
            weave: file.weave,
        };
        recipe.check().map_err(|e| e.at(place))?;
        Ok(recipe)
    }

    /// Reads a file; relative paths are tried beside it first.
    ///
    /// # Errors
    /// As [`Self::read`], and a file that cannot be read.
    pub fn open(path: &Path, set: &[(String, String)]) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).map_err(|e| polyloom_core::Error::io(path, "read", e))?;
        let mut recipe = Self::read(&text, &path.display().to_string(), set)?;
        let beside = |given: &str| crate::recipe::beside(path, given);
        recipe.base = beside(&recipe.base)?;
        for expert in &mut recipe.experts {
            expert.path = beside(&expert.path)?;
        }
        if let Some(shared) = &mut recipe.weave.shared {
            *shared = beside(shared)?;
        }
        for file in [&mut recipe.weave.heads, &mut recipe.weave.preprocessor]
            .into_iter()
            .flatten()
        {
            *file = beside(&file.display().to_string())?.into();
        }
        Ok(recipe)
    }

    /// Whether the values can be.
    ///
    /// # Errors
    /// The first that cannot.
    pub fn check(&self) -> Result<()> {
        let w = &self.weave;
        let bad = |what: String| Err(MergeError::plan("bad-recipe", what));
        if self.experts.is_empty() {
            let error = MergeError::plan("bad-recipe", "names no experts");
            return Err(error.hint("[[expert]] path = \"...\", task = \"...\""));
        }
        for (i, expert) in self.experts.iter().enumerate() {
            if expert.path.is_empty() {
                return bad(format!("expert {} has no `path`", i + 1));
            }
            if expert.task.is_none() {
                let what = format!("expert {} (`{}`) names no task", i + 1, expert.path);
                let error = MergeError::plan("bad-recipe", what);
                return Err(
                    error.hint("task = \"...\": the router learns from its rows, its head answers")
                );
            }
            if let Some(name) = expert.name.as_ref().filter(|n| !is_plain(n)) {
                return bad(format!(
                    "expert {} has the name `{name}`, which is no name of a file",
                    i + 1
                ));
            }
        }
        if w.density.is_some() as u8 + w.mask_rate.is_some() as u8 + w.rank.is_some() as u8 > 1 {
            return bad("has more than one of `weave.density`, `mask_rate` and `rank`".into());
        }
        for (name, x) in [("density", w.density), ("mask_rate", w.mask_rate)] {
            if x.is_some_and(|x| !(0.0..=1.0).contains(&x)) {
                return bad(format!("`weave.{name}` must be in 0 to 1"));
            }
        }
        if w.rank == Some(0) || w.gate_rank == 0 || w.top == 0 || w.batch == 0 {
            return bad("`weave.rank`, `gate_rank`, `top` and `batch` must be at least 1".into());
        }
        if w.rank.is_some() && w.compression != Compression::Svd {
            return bad(
                "`weave.rank` counts singular triples; it needs `compression = \"svd\"`".into(),
            );
        }
        if w.method == Method::Smile && w.compression != Compression::Svd {
            return bad("`weave.method = \"smile\"` keeps singular triples; it needs `compression = \"svd\"`".into());
        }
        if w.method == Method::Wemoe && self.density() < 1.0 {
            return bad("`weave.method = \"wemoe\"` keeps whole differences of the feed-forward parts; `density`, `mask_rate` and `rank` are for twin and smile".into());
        }
        if w.shared.is_some() && w.method != Method::Twin {
            return bad("`weave.shared` is for `method = \"twin\"`".into());
        }
        if w.limit == Some(0) || w.max_length == Some(0) {
            return bad("`weave.limit` and `max_length` must be at least 1".into());
        }
        for (name, x) in [("lambda", w.lambda), ("rate", w.rate)] {
            if !x.is_finite() || (name == "rate" && x < 0.0) {
                return bad(format!("`weave.{name}` is {x}"));
            }
        }
        let r = &w.router;
        if r.limit == 0 || r.top == Some(0) || r.levels > 1 << 16 {
            return bad(
                "`weave.router`: `limit` and `top` must be at least 1, `levels` at most 65536"
                    .into(),
            );
        }
        if let Err(e) = self.fit().check() {
            return bad(format!("`weave.router`: {e}"));
        }
        if let Some(word) = &r.feature {
            if w.method != Method::Twin {
                return bad(format!(
                    "`weave.router.feature`: with `{}` the router reads what the heads see",
                    w.method.word()
                ));
            }
            if let Err(what) = word.parse::<Tap>() {
                return bad(format!("`weave.router.feature`: {what}"));
            }
        }
        self.dtype()?;
        Ok(())
    }

    /// Share of a part that stays. Twin: 0.1 (a mask rate of 0.9); WEMoE keeps all; SMILE counts ranks.
    #[must_use]
    pub fn density(&self) -> f64 {
        let w = &self.weave;
        match (w.density, w.mask_rate, w.method) {
            (Some(density), ..) => density,
            // As the release computes it, before it is cut to whole counts.
            (None, Some(rate), _) => 1.0 - rate,
            (None, None, Method::Twin) => 1.0 - 0.9,
            (None, None, _) => 1.0,
        }
    }

    /// Ranks that stay of a matrix whose shorter side is `least`.
    #[must_use]
    pub fn density_of(&self, least: usize) -> f64 {
        let w = &self.weave;
        let smile = (w.method == Method::Smile && w.density.is_none() && w.mask_rate.is_none())
            .then_some(128);
        match w.rank.or(smile) {
            // Half a triple more, so that cutting gives the count.
            Some(rank) if rank < least => (rank as f64 + 0.5) / least as f64,
            Some(_) => 1.0,
            None => self.density(),
        }
    }

    /// What the router reads; Twin-Merging's paper: the mean of the last hidden state.
    ///
    /// # Errors
    /// A word that is none.
    pub fn tap(&self) -> Result<Tap> {
        let word = self.weave.router.feature.as_deref().unwrap_or("mean");
        let bad = |e| MergeError::plan("bad-recipe", format!("`weave.router.feature`: {e}"));
        word.parse().map_err(bad)
    }

    /// How the router is fitted.
    #[must_use]
    pub fn fit(&self) -> Fit {
        let r = &self.weave.router;
        let method = match r.method {
            RouterMethod::Mlp => route::Method::Mlp,
            RouterMethod::Linear => route::Method::Linear,
            RouterMethod::Centroid => route::Method::Centroid,
            RouterMethod::Knn => route::Method::Knn,
            RouterMethod::Pilots => route::Method::Pilots,
        };
        let usual = Fit::new(method);
        let mlp = MlpFit {
            hidden: r.hidden,
            rate: r.rate as f32,
            batch: r.batch,
            epochs: r.epochs,
            dropout: r.dropout as f32,
            seed: usual.mlp.seed,
        };
        let (reduce, similarity) = match method {
            // Many vectors of an expert: the nearest counts.
            route::Method::Pilots => (Reduce::Max, Similarity::Cosine),
            _ => (usual.reduce, usual.similarity),
        };
        Fit {
            split: r.split.clone(),
            seed: self.seed,
            temperature: r.temperature.map(|t| t as f32),
            k: r.k.or((method == route::Method::Pilots).then_some(16)),
            reduce,
            similarity,
            mlp: if method == route::Method::Mlp {
                mlp
            } else {
                usual.mlp.clone()
            },
            ..usual
        }
    }

    /// Tasks, in the order of the experts.
    #[must_use]
    pub fn tasks(&self) -> Vec<String> {
        self.experts.iter().filter_map(|e| e.task.clone()).collect()
    }

    /// Type of shared vector and parts.
    ///
    /// # Errors
    /// A word that is no type of weights.
    pub fn dtype(&self) -> Result<Option<DType>> {
        crate::recipe::dtype(self.weave.dtype.as_deref(), "weave.dtype")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "[base]\npath = \"b\"\n[[expert]]\npath = \"x\"\ntask = \"t\"\n";

    fn read(extra: &str) -> Result<Recipe> {
        Recipe::read(&format!("{SMALL}[weave]\n{extra}\n"), "f", &[])
    }

    #[test]
    fn densities_are_those_of_the_words() {
        let of =
            |extra: &str, least| (read(extra).unwrap().density_of(least) * least as f64) as usize;
        assert_eq!(
            (
                of("", 128),
                of("mask_rate = 0.8", 10),
                of("density = 0.2", 10)
            ),
            (12, 1, 2)
        );
        assert_eq!((of("rank = 7", 128), of("rank = 7", 4)), (7, 4));
        assert_eq!(
            (of("method = \"smile\"", 300), of("method = \"smile\"", 64)),
            (128, 64)
        );
    }

    #[test]
    fn problems_say_where_and_what() {
        let told = |extra: &str| read(extra).unwrap_err().to_string();
        assert!(
            told("densty = 1").contains("f:7:1"),
            "{}",
            told("densty = 1")
        );
        assert!(told("density = 0.2\nrank = 3").contains("more than one of"));
        assert!(
            told("method = \"smile\"\ncompression = \"magnitude\"")
                .contains("needs `compression = \"svd\"`")
        );
        assert!(told("[weave.router]\nfeature = \"odd\"").contains("layer:K"));
        let none = Recipe::read(
            "[base]\npath = \"b\"\n[[expert]]\npath = \"x\"\n[weave]\n",
            "f",
            &[],
        );
        assert!(none.unwrap_err().to_string().contains("names no task"));
        assert!(is_woven(&format!("{SMALL}[weave]\n")) && !is_woven(SMALL));
    }
}
