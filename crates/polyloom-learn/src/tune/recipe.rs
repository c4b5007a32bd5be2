//! What a recipe says of learned coefficients: `[tune]` of a `loom.toml`, beside `[base]` and `[[expert]]`.

use std::path::{Path, PathBuf};

use polyloom::MergeError;
use polyloom_core::DType;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::coefficients::Form;
use super::scoring::Trials;
pub use super::words::{Loss, Method, On, Per};
use crate::train::schedule::Shape;

type Result<T> = std::result::Result<T, MergeError>;

/// `[tune]`. What is not given depends on the method; the functions of [`Recipe`] say what counts.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tune {
    /// What is learned.
    pub method: Method,
    /// What the mask of "concrete" is learned for.
    pub on: On,
    /// Steps of the mask.
    pub mask_steps: u32,
    /// Learning rate of its logits.
    pub mask_rate: f64,
    /// Temperature of its relaxed Bernoulli variable.
    pub temperature: f64,
    /// Rate of the one step that coefficients make before each step of the mask (`on = "adamerging"`).
    pub inner_rate: f64,
    /// Coefficients of an expert.
    pub per: Option<Per>,
    /// Groups that the numbers of a tensor are split into at random, each with a coefficient of its own (aTLAS x K).
    pub groups: usize,
    /// Share of each task vector that TIES selects before anything is learned (AdaMerging++); all where none is given.
    pub density: Option<f64>,
    /// What all coefficients begin with.
    pub init: Option<f64>,
    /// Coefficients act as if they were in 0 to 1; what is learned may lie outside.
    pub clamp: Option<bool>,
    /// What a step makes smaller.
    pub loss: Option<Loss>,
    /// Highest learning rate.
    #[serde(alias = "lr", alias = "learning_rate")]
    pub rate: Option<f64>,
    /// What the rate does over the steps.
    pub schedule: Option<Shape>,
    /// Decay of Adam's moments.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decay of the coefficients (AdamW).
    #[serde(alias = "weight_decay")]
    pub decay: Option<f64>,
    /// Longest gradient of all coefficients together, 0 for any.
    #[serde(alias = "grad_clip", alias = "max_grad_norm")]
    pub clip: Option<f64>,
    /// Factor of the penalty on `mean_j |c_j|_p`, over the rows j of coefficients.
    pub penalty: f64,
    /// That p.
    pub penalty_power: f64,
    /// Steps.
    #[serde(alias = "max_steps")]
    pub steps: Option<u32>,
    /// Times that the rows are seen, in place of steps.
    pub epochs: Option<f64>,
    /// Rows of each task in a step.
    pub batch: Option<usize>,
    /// Tasks whose rows are seen; those of the experts where none is named.
    pub tasks: Vec<String>,
    /// Their split.
    pub split: String,
    /// Rows of a task at most.
    pub limit: Option<usize>,
    /// Rows of every class of a task, drawn by the seed, in place of all.
    pub shots: Option<usize>,
    /// What "pseudo" calls sure.
    pub confidence: f32,
    /// Divides cosines in the losses of vectors.
    pub similarity_temperature: f64,
    /// How strongly "pseudo" changes pictures; 1 is what `train.augment` calls usual.
    pub augment: f32,
    /// Tokens of a text at most.
    pub max_length: Option<usize>,
    /// Folder of the heads; each expert's own where none is named.
    pub heads: Option<PathBuf>,
    /// How pictures are prepared, where the base's folder has no `preprocessor_config.json`: such a file.
    pub preprocessor: Option<PathBuf>,
    /// Type of the written weights; that of the base where none is named.
    pub dtype: Option<String>,
    /// Trials in place of gradients.
    pub trials: Trials,
}

impl Default for Tune {
    fn default() -> Self {
        Self {
            method: Method::default(),
            on: On::default(),
            mask_steps: 2000,
            mask_rate: 1e-3,
            temperature: 0.5,
            inner_rate: 1.0,
            per: None,
            groups: 1,
            density: None,
            init: None,
            clamp: None,
            loss: None,
            rate: None,
            schedule: None,
            betas: [0.9, 0.999],
            eps: 1e-8,
            decay: None,
            clip: None,
            penalty: 0.0,
            penalty_power: 1.0,
            steps: None,
            epochs: None,
            batch: None,
            tasks: Vec::new(),
            split: "validation".into(),
            limit: None,
            shots: None,
            confidence: 0.99,
            similarity_temperature: 0.05,
            augment: 2.0,
            max_length: None,
            heads: None,
            preprocessor: None,
            dtype: None,
            trials: Trials::default(),
        }
    }
}

/// `[[expert]]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expert {
    /// Where it lies: a folder, `MODEL+ADAPTER`.
    pub path: String,
    /// Its name; the last part of the path where none is given.
    pub name: Option<String>,
    /// The task that it was tuned for.
    pub task: Option<String>,
    /// Prefix taken off the names of its tensors.
    pub strip_prefix: Option<String>,
    /// Prefix put before the names of its tensors.
    pub add_prefix: Option<String>,
    /// For `merge`.
    #[serde(skip_serializing)]
    merge: Option<Ignored>,
    /// For methods of statistics.
    #[serde(skip_serializing)]
    stats: Option<Ignored>,
}

/// What another command reads.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(from = "IgnoredAny")]
struct Ignored;

impl From<IgnoredAny> for Ignored {
    fn from(_: IgnoredAny) -> Self {
        Self
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
pub(super) struct File {
    version: Option<i64>,
    name: Option<String>,
    pub(super) seed: u64,
    base: Base,
    pub(super) expert: Vec<Expert>,
    pub(super) tune: Tune,
    train: Option<IgnoredAny>,
    merge: Option<IgnoredAny>,
    eval: Option<IgnoredAny>,
    compress: Option<IgnoredAny>,
    route: Option<IgnoredAny>,
    weave: Option<IgnoredAny>,
    serve: Option<IgnoredAny>,
    tasks: Option<IgnoredAny>,
    model: Option<IgnoredAny>,
    slice: Option<IgnoredAny>,
    tokenizer: Option<IgnoredAny>,
    chat_template: Option<IgnoredAny>,
}

impl Tune {
    /// Puts paths beside the recipe.
    pub(super) fn beside(&mut self, path: &Path) -> Result<()> {
        for task in &mut self.tasks {
            *task = crate::recipe::beside(path, task)?;
        }
        for file in [&mut self.heads, &mut self.preprocessor]
            .into_iter()
            .flatten()
        {
            *file = crate::recipe::beside(path, &file.display().to_string())?.into();
        }
        Ok(())
    }
}

/// A recipe for `polyloom tune`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recipe {
    /// Its name.
    pub name: Option<String>,
    /// Seed of all that is random.
    pub seed: u64,
    /// The base.
    pub base: String,
    /// Experts, in the order of the coefficients.
    pub experts: Vec<Expert>,
    /// The rest.
    pub tune: Tune,
}

impl Recipe {
    /// Reads a `loom.toml`, with keys set from outside (`tune.rate`, `1e-4`), which count more.
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
            tune: file.tune,
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
        recipe.tune.beside(path)?;
        Ok(recipe)
    }

    /// Tasks whose rows are seen: those that are named, else those of the experts.
    #[must_use]
    pub fn tasks(&self) -> Vec<String> {
        if !self.tune.tasks.is_empty() {
            return self.tune.tasks.clone();
        }
        let mut found: Vec<String> = Vec::new();
        for task in self.experts.iter().filter_map(|e| e.task.as_ref()) {
            if !found.contains(task) {
                found.push(task.clone());
            }
        }
        found
    }

    /// What is given, else what AdaMerging, aTLAS or Self Positioning does.
    fn pick<T>(&self, given: Option<T>, adamerging: T, atlas: T, position: T) -> T {
        given.unwrap_or(match self.tune.method {
            Method::Adamerging | Method::Concrete => adamerging,
            Method::Atlas => atlas,
            Method::SelfPositioning => position,
        })
    }

    /// What coefficients begin with: 0.3 (AdaMerging), 0 (aTLAS); of a position its `mu`, 1: the experts' average.
    #[must_use]
    pub fn init(&self) -> f64 {
        self.pick(self.tune.init, 0.3, 0.0, 1.0)
    }

    /// Coefficients of an expert: one for every tensor; of a position one.
    #[must_use]
    pub fn per(&self) -> Per {
        self.pick(self.tune.per, Per::Tensor, Per::Tensor, Per::Task)
    }

    /// How learned numbers become coefficients: AdaMerging's act as if they were in 0 to 1.
    #[must_use]
    pub fn form(&self) -> Form {
        let usual = self.pick(None, Form::Clamped, Form::Free, Form::Position);
        match self.tune.clamp {
            Some(true) if usual != Form::Position => Form::Clamped,
            Some(false) if usual != Form::Position => Form::Free,
            _ => usual,
        }
    }

    /// What a step makes smaller: entropy (AdaMerging), the supervised loss (aTLAS), that of vectors (Self Positioning).
    #[must_use]
    pub fn loss(&self) -> Loss {
        let given = self.tune.loss;
        self.pick(given, Loss::Entropy, Loss::Supervised, Loss::Contrastive)
    }

    /// Highest learning rate: 1e-3; of a position 2e-2.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.pick(self.tune.rate, 1e-3, 1e-3, 2e-2)
    }

    /// What the rate does: it stays.
    #[must_use]
    pub fn schedule(&self) -> Shape {
        self.tune.schedule.unwrap_or(Shape::Constant)
    }

    /// Decay of the coefficients: none (AdaMerging, Self Positioning), 0.1 (aTLAS).
    #[must_use]
    pub fn decay(&self) -> f64 {
        self.pick(self.tune.decay, 0.0, 0.1, 0.0)
    }

    /// Longest gradient: any (AdaMerging, Self Positioning), 1 (aTLAS).
    #[must_use]
    pub fn clip(&self) -> f64 {
        self.pick(self.tune.clip, 0.0, 1.0, 0.0)
    }

    /// Rows of each of `tasks` tasks in a step: 16 (AdaMerging), an equal share of 128 (aTLAS), 32 (Self Positioning).
    #[must_use]
    pub fn batch(&self, tasks: usize) -> usize {
        self.pick(self.tune.batch, 16, (128 / tasks.max(1)).max(1), 32)
    }

    /// Steps of the coefficients over tasks with so many rows: 500 (AdaMerging), 20 epochs (aTLAS), none or 1000 (after a
    /// mask), 100 (Self Positioning). An epoch lasts until the largest task has been seen once.
    #[must_use]
    pub fn steps(&self, rows: &[usize]) -> u32 {
        let largest = rows.iter().copied().max().unwrap_or(1);
        let epoch = largest.div_ceil(self.batch(rows.len())).max(1);
        let of = |epochs: f64| (epochs * epoch as f64).ceil().clamp(1.0, 1e9) as u32;
        match (self.tune.steps, self.tune.epochs) {
            (Some(steps), _) => steps,
            (None, Some(epochs)) => of(epochs),
            (None, None) => match (self.tune.method, self.tune.on) {
                (Method::Concrete, On::TaskArithmetic) => 0,
                (Method::Concrete, On::Adamerging) => 1000,
                _ => self.pick(None, 500, of(20.0), 100),
            },
        }
    }

    /// Type of the written weights.
    ///
    /// # Errors
    /// A word that is no type of weights.
    pub fn dtype(&self) -> Result<Option<DType>> {
        crate::recipe::dtype(self.tune.dtype.as_deref(), "tune.dtype")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "seed = 3\n[base]\npath = \"b\"\n[[expert]]\npath = \"x\"\ntask = \"t\"\n[[expert]]\npath = \"y\"\ntask = \"u\"\n";

    #[test]
    fn what_is_not_said_depends_on_the_method() {
        let ada = Recipe::read(SMALL, "f", &[]).unwrap();
        assert_eq!(
            (ada.init(), ada.form(), ada.loss()),
            (0.3, Form::Clamped, Loss::Entropy)
        );
        assert_eq!((ada.batch(8), ada.steps(&[100, 50])), (16, 500));
        assert_eq!(ada.tasks(), ["t", "u"]);
        let set = [("tune.method".to_owned(), "atlas".to_owned())];
        let atlas = Recipe::read(SMALL, "f", &set).unwrap();
        assert_eq!(
            (atlas.init(), atlas.form(), atlas.decay()),
            (0.0, Form::Free, 0.1)
        );
        let set = [("tune.method".to_owned(), "self_positioning".to_owned())];
        let position = Recipe::read(SMALL, "f", &set).unwrap();
        assert_eq!(
            (position.init(), position.form(), position.per()),
            (1.0, Form::Position, Per::Task)
        );
        assert_eq!(position.loss(), Loss::Contrastive);
        assert_eq!((position.batch(9), position.steps(&[5])), (32, 100));
        // 64 rows of each of two tasks; the larger one has 100: two steps an epoch.
        assert_eq!((atlas.batch(2), atlas.steps(&[100, 50])), (64, 40));
        let theirs = Recipe::read(
            &format!("{SMALL}[tune]\nper = \"layer\"\nlr = 0.01\n"),
            "f",
            &[],
        );
        assert_eq!(
            (theirs.as_ref().unwrap().rate(), theirs.unwrap().per()),
            (0.01, Per::Tensor)
        );
    }

    #[test]
    fn problems_say_where_and_what() {
        let told = |extra: &str| {
            Recipe::read(&format!("{SMALL}[tune]\n{extra}\n"), "f", &[])
                .unwrap_err()
                .to_string()
        };
        let at = told("stesp = 5");
        assert!(at.contains("f:11:1") && at.contains("`stesp`"), "{at}");
        assert!(told("groups = 4\nper = \"task\"").contains("needs `per = \"tensor\"`"));
        assert!(told("decay = -1").contains("at least 0"));
        let position = "method = \"self_positioning\"\n";
        assert!(told(&format!("{position}init = 0")).contains("`mu`"));
        assert!(told(&format!("{position}init = -1.0")).contains("`mu`"));
        assert!(told(&format!("{position}clamp = true")).contains("softmax"));
        assert!(told(&format!("{position}loss = \"entropy\"")).contains("contrastive"));
        assert!(told(&format!("{position}shots = 2")).contains("tune.shots"));
        assert!(told(&format!("{position}heads = \"h\"")).contains("tune.heads"));
        assert!(told(&format!("{position}similarity_temperature = 0")).contains("above 0"));
        assert!(told("steps = 5\nepochs = 1").contains("give one of them"));
        let none = Recipe::read("[base]\npath = \"b\"\n", "f", &[])
            .unwrap_err()
            .to_string();
        assert!(none.contains("names no experts"), "{none}");
    }

    #[test]
    fn the_reference_has_every_key() {
        let page = include_str!("../../../../docs/reference/tuning.md");
        let all = serde_json::to_value(Tune::default()).unwrap();
        for key in all.as_object().unwrap().keys() {
            assert!(
                page.contains(&format!("| `{key}`")) || page.contains(&format!(", `{key}`")),
                "docs/reference/tuning.md lacks `{key}`"
            );
        }
    }
}
