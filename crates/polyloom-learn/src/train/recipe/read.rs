//! A recipe read from a file and flags, and checked.

use std::path::Path;

use polyloom::MergeError;
use polyloom::tasks::sample::Policy;
use polyloom_core::DType;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{HeadRecipe, Method, Objective, OptimiserName, Recipe, Sampling, Start, Train};
use crate::tasks::language::Learn;
use crate::train::optimiser::Tables;
use crate::train::rowwise::Loss;

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Base {
    path: Option<String>,
    strip_prefix: Option<IgnoredAny>,
    add_prefix: Option<IgnoredAny>,
    stats: Option<IgnoredAny>,
}

/// A whole file; tables of other commands are left to them.
#[derive(Debug, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct File {
    version: Option<i64>,
    name: Option<String>,
    seed: u64,
    base: Base,
    train: Train,
    expert: Option<IgnoredAny>,
    model: Option<IgnoredAny>,
    slice: Option<IgnoredAny>,
    merge: Option<IgnoredAny>,
    tokenizer: Option<IgnoredAny>,
    chat_template: Option<IgnoredAny>,
    eval: Option<IgnoredAny>,
    tune: Option<IgnoredAny>,
    compress: Option<IgnoredAny>,
    route: Option<IgnoredAny>,
    weave: Option<IgnoredAny>,
    serve: Option<IgnoredAny>,
    tasks: Option<IgnoredAny>,
}

type Result<T> = std::result::Result<T, MergeError>;

impl Recipe {
    /// Reads a `loom.toml`, with keys set from outside (`train.rate`, `1e-4`), which count more.
    ///
    /// # Errors
    /// No TOML, keys or words that are not known (with line and column), values that cannot be.
    pub fn read(text: &str, place: &str, set: &[(String, String)]) -> Result<Self> {
        let file: File = crate::recipe::read(text, place, set)?;
        crate::recipe::version(file.version, place)?;
        let recipe = Self {
            name: file.name,
            seed: file.seed,
            base: file.base.path,
            train: file.train,
        };
        recipe.check().map_err(|e| e.at(place))?;
        Ok(recipe)
    }

    /// Whether the values can be.
    ///
    /// # Errors
    /// The first that cannot.
    pub fn check(&self) -> Result<()> {
        let t = &self.train;
        let bad = |what: &str, hint: &str| {
            let error = MergeError::plan("bad-recipe", what);
            Err(if hint.is_empty() {
                error
            } else {
                error.hint(hint)
            })
        };
        if t.tasks.is_empty() {
            return bad(
                "`train.tasks` names no task",
                "tasks = [\"text/sst2\"]; `polyloom tasks list` shows those that are known",
            );
        }
        match (&self.base, &t.new) {
            (None, None) => {
                return bad(
                    "names no base to train",
                    "[base] path = \"...\", --base MODEL, or [train.new] for a model made from nothing",
                );
            }
            (Some(_), Some(_)) => {
                return bad(
                    "has both a base and `train.new`; a run begins with one of them",
                    "",
                );
            }
            _ => {}
        }
        if t.moe.is_some() && t.new.is_some() {
            return bad(
                "`train.moe` makes experts of the feed-forward parts of a base, and a new model has none",
                "[train.new.moe] is for new models",
            );
        }
        if t.moe.is_some() && t.method != Method::Full {
            return bad(
                "`train.moe` makes experts, which `method = \"full\"` alone learns and writes",
                "train.method = \"full\"",
            );
        }
        if t.epochs.is_some() && t.steps.is_some() {
            return bad(
                "has both `train.epochs` and `train.steps`",
                "give one of them",
            );
        }
        if t.steps == Some(0) || t.epochs.is_some_and(|e| !(e > 0.0 && e.is_finite())) {
            return bad("`train.steps` and `train.epochs` must be above 0", "");
        }
        if t.batch == 0 || t.accumulate == 0 || t.limit == Some(0) || t.max_length == Some(0) {
            return bad(
                "`train.batch`, `accumulate`, `limit` and `max_length` must be at least 1",
                "",
            );
        }
        let numbers = [
            ("rate", t.rate.unwrap_or(0.0)),
            ("decay", self.decay()),
            ("eps", t.eps),
            ("clip", t.clip),
            ("augment", t.augment),
        ];
        for (name, x) in numbers {
            if !(x.is_finite() && x >= 0.0) {
                return bad(&format!("`train.{name}` is {x}; it must be at least 0"), "");
            }
        }
        let below_one = [
            ("betas", self.betas()[0]),
            ("betas", self.betas()[1]),
            ("momentum", t.momentum),
            ("smoothing", t.smoothing),
            ("lora.dropout", t.lora.dropout),
        ];
        for (name, x) in below_one {
            if !(0.0..1.0).contains(&x) {
                return bad(
                    &format!("`train.{name}` is {x}; it must be in 0 to below 1"),
                    "",
                );
            }
        }
        let others = t.head != HeadRecipe::default()
            || t.smoothing != 0.0
            || t.fuse.is_some()
            || t.language.is_some();
        if t.objective == Objective::Contrastive && others {
            return bad(
                "`objective = \"contrastive\"` learns vectors; `train.head`, `smoothing`, `fuse` and `language` are about heads and decoders",
                "leave them out",
            );
        }
        crate::recipe::temperature(t.similarity_temperature, "train.similarity_temperature")?;
        if !(t.warmup.is_finite() && t.warmup >= 0.0) {
            return bad("`train.warmup` must be at least 0", "");
        }
        if t.method == Method::Lora {
            if t.lora.rank == 0 || t.lora.alpha.is_some_and(|a| !(a.is_finite() && a > 0.0)) {
                return bad("`train.lora.rank` and `alpha` must be above 0", "");
            }
            if t.new.is_some() {
                return bad(
                    "`method = \"lora\"` needs a base; a model made from nothing has nothing to adapt",
                    "",
                );
            }
        }
        if t.add.is_some()
            && (t.new.is_some() || t.moe.is_some() || t.each || t.method != Method::Full)
        {
            return bad(
                "`[train.add]` adds goals to a base, which stays: `train.new`, `train.moe`, `train.each` and `train.method` do not go with it",
                "base = a trained model with experts or memories of goals, method = \"full\"",
            );
        }
        if t.method == Method::Head && t.head.frozen {
            return bad(
                "`method = \"head\"` and `head.frozen` leave nothing to train",
                "",
            );
        }
        if let Some(hidden) = t.head.hidden
            && (t.head.start != Start::Random || !(1..=1 << 16).contains(&hidden))
        {
            return bad(
                "`train.head.hidden` is the width of a layer, 1 to 65536, of a head that begins random",
                "leave out `start`, or `hidden`",
            );
        }
        if t.head.frozen && matches!(t.head.start, Start::Random | Start::Zero) {
            return bad(
                "a frozen head that begins random or zero says nothing of the task",
                "[train.head] start = \"probe\"",
            );
        }
        if let Some(language) = &t.language {
            if t.method == Method::Head || t.head != HeadRecipe::default() {
                return bad(
                    "`train.language` learns tokens, without heads: `method = \"head\"` and `[train.head]` do not go with it",
                    "method = \"full\" or \"lora\"",
                );
            }
            if language.pack == Some(true) && t.fuse.is_some() {
                return bad(
                    "`train.fuse` asks its sources text by text, and `train.language.pack` makes blocks of several",
                    "[train.language] pack = false",
                );
            }
            if t.fuse.as_ref().is_some_and(|f| !f.labels) && language.learn == Learn::Answers {
                return bad(
                    "`train.fuse.labels = false` with `learn = \"answers\"`: the tokens that are read are the right answers",
                    "`train.fuse.lambda = 0` learns from the sources alone",
                );
            }
            if language.prompt.is_some() && language.learn == Learn::Texts {
                return bad(
                    "`train.language.prompt` names the prompt of answers; texts have none",
                    "[train.language] learn = \"answers\"",
                );
            }
            if language.pack == Some(true) && language.learn == Learn::Answers {
                return bad(
                    "`train.language.pack` is for texts: an answer has a prompt of its own",
                    "",
                );
            }
        }
        if let Some(fuse) = &t.fuse {
            if fuse.sources.is_empty() {
                return bad(
                    "`train.fuse` names no sources",
                    "sources = [\"experts/a\", \"models/large\"]",
                );
            }
            fuse.check(t.language.is_some())?;
        }
        if let Some(chain) = &t.chain {
            if !(chain.weight.is_finite() && chain.weight >= 0.0) {
                return bad("`train.chain.weight` must be at least 0", "");
            }
            let others = [
                ("balance", t.balance.is_some()),
                ("fuse", t.fuse.is_some()),
                ("language", t.language.is_some()),
                ("smoothing", t.smoothing != 0.0),
                ("objective", t.objective != Objective::Heads),
                ("loss", t.loss != Loss::default()),
                ("reweight", t.reweight.is_some()),
                ("representation", t.representation.is_some()),
                ("pseudo", t.pseudo.is_some()),
                ("optimiser", t.optimiser == OptimiserName::SophiaG),
            ];
            if let Some((key, _)) = others.iter().find(|(_, said)| *said) {
                return bad(
                    &format!(
                        "`train.chain` makes losses of its own, which `train.{key}` does not go with"
                    ),
                    "leave out one of them",
                );
            }
        }
        if let Some(balance) = &t.balance {
            crate::balance::Balance::new(&balance.method, &balance.parameters, 2)?;
            if t.language.is_some() {
                return bad(
                    "`train.balance` balances goals with heads; language has none",
                    "leave out [train.balance], or train heads",
                );
            }
            if t.method == Method::Head {
                return bad(
                    "`train.balance` balances what tasks share; heads alone share nothing",
                    "train.method = \"full\" or \"lora\"",
                );
            }
            if t.embedding_update == Tables::Lazy {
                return bad(
                    "`train.balance` needs whole gradients, which `embedding_update = \"lazy\"` does not keep",
                    "train.embedding_update = \"dense\"",
                );
            }
        }
        super::super::slim::check(t)?;
        super::super::reconstruct::check(t)?;
        super::super::weigh::check(t)?;
        super::super::curvature::check(t)?;
        super::super::mixing::check(t)?;
        super::super::rowwise::check(t)?;
        super::super::stages::check(t)?;
        if let Some(pseudo) = &t.pseudo {
            pseudo.check(t.language.is_some())?;
        }
        super::super::representation::check(t)?;
        crate::folds::check(t)?;
        self.policy()?;
        self.dtype().map(drop)
    }

    /// Decay of the moments: 0.9 and 0.999 for Adam, 0.965 and 0.99 for Sophia-G, 0.9 and 0.99 for Sophia-H where the
    /// recipe says nothing.
    #[must_use]
    pub fn betas(&self) -> [f64; 2] {
        self.train.betas.unwrap_or(match self.train.optimiser {
            OptimiserName::SophiaG => [0.965, 0.99],
            OptimiserName::SophiaH => [0.9, 0.99],
            _ => [0.9, 0.999],
        })
    }

    /// Weight decay.
    #[must_use]
    pub fn decay(&self) -> f64 {
        self.train.decay.unwrap_or(match self.train.optimiser {
            OptimiserName::SophiaG => 0.1,
            _ => 0.01,
        })
    }

    /// The type of the weights on disk, where the recipe says one.
    ///
    /// # Errors
    /// A word that is no type of weights.
    pub fn dtype(&self) -> Result<Option<DType>> {
        crate::recipe::dtype(self.train.dtype.as_deref(), "train.dtype")
    }

    /// The rule of sampling.
    ///
    /// # Errors
    /// A temperature that is not above 0.
    pub fn policy(&self) -> Result<Policy> {
        Ok(match self.train.sampling {
            Sampling::Proportional => Policy::Proportional,
            // What is drawn before anything was learned of the tasks' risks.
            Sampling::Uniform | Sampling::Mpts => Policy::Uniform,
            Sampling::SquareRoot => Policy::SquareRoot,
            Sampling::Temperature if self.train.temperature > 0.0 => {
                Policy::Temperature(self.train.temperature)
            }
            Sampling::Temperature => {
                return Err(MergeError::plan(
                    "bad-recipe",
                    "`train.temperature` must be above 0",
                ));
            }
        })
    }

    /// The highest learning rate.
    #[must_use]
    pub fn rate(&self) -> f64 {
        let usual = match self.train.method {
            Method::Full if self.train.new.is_some() => 1e-3,
            Method::Full => 5e-5,
            Method::Lora => 5e-4,
            Method::Head => 1e-3,
        };
        self.train.rate.unwrap_or(usual)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// As [`Self::read`], and a file that cannot be read.
    pub fn open(path: &Path, set: &[(String, String)]) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).map_err(|e| polyloom_core::Error::io(path, "read", e))?;
        let mut recipe = Self::read(&text, &path.display().to_string(), set)?;
        let beside = |given: &str| crate::recipe::beside(path, given);
        recipe.base = recipe.base.as_deref().map(beside).transpose()?;
        for task in &mut recipe.train.tasks {
            *task = beside(task)?;
        }
        for teacher in recipe.train.pseudo.iter_mut().flat_map(|p| &mut p.teachers) {
            *teacher = beside(teacher)?;
        }
        if let Some(fuse) = &mut recipe.train.fuse {
            for source in &mut fuse.sources {
                *source = beside(source)?;
            }
            if let Some(heads) = &mut fuse.heads {
                *heads = beside(&heads.display().to_string())?.into();
            }
        }
        let new = recipe.train.new.as_mut();
        if let Some(toml::Value::String(tokenizer)) = new.and_then(|n| n.get_mut("tokenizer")) {
            *tokenizer = beside(tokenizer)?;
        }
        if let Start::From(folder) = &mut recipe.train.head.start {
            *folder = beside(&folder.display().to_string())?.into();
        }
        Ok(recipe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "seed = 7\n[base]\npath = \"m\"\n[train]\ntasks = [\"a\"]\n";

    fn told(extra: &str) -> String {
        let text = format!("{SMALL}{extra}");
        Recipe::read(&text, "loom.toml", &[])
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn names_of_other_programs_mean_the_same() {
        let ours = Recipe::read(&format!("{SMALL}rate = 1e-4\nbatch = 8\nmethod = \"lora\"\n[train.lora]\nrank = 4\nalpha = 8\ndora = true\n"), "f", &[]).unwrap();
        let theirs = Recipe::read(&format!("{SMALL}learning_rate = 1e-4\nper_device_train_batch_size = 8\nmethod = \"lora\"\n[train.lora]\nr = 4\nlora_alpha = 8\nuse_dora = true\n"), "f", &[]).unwrap();
        assert_eq!(ours, theirs);
        assert_eq!(ours.rate(), 1e-4);
    }

    #[test]
    fn keys_set_from_outside_count_more() {
        let set = [
            ("train.method".to_owned(), "head".to_owned()),
            ("train.head.start".to_owned(), "probe".to_owned()),
        ];
        let recipe = Recipe::read(SMALL, "f", &set).unwrap();
        assert_eq!(
            (recipe.train.method, recipe.train.head.start, recipe.seed),
            (Method::Head, Start::Probe, 7)
        );
        let heads = [("train.head.start".to_owned(), "some/heads".to_owned())];
        let recipe = Recipe::read(SMALL, "f", &heads).unwrap();
        assert_eq!(recipe.train.head.start, Start::From("some/heads".into()));
    }

    #[test]
    fn problems_say_where_and_what() {
        let error = Recipe::read(&format!("{SMALL}epoch = 3\n"), "loom.toml", &[]).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("loom.toml:6:1: unknown field `epoch`"),
            "{error}"
        );
        assert_eq!(error.hints(), ["did you mean `epochs`?"]);
        assert!(told("epochs = 3\nsteps = 3\n").contains("both `train.epochs`"));
        assert!(told("batch = 0\n").contains("at least 1"));
        assert!(told("dtype = \"int4\"\n").contains("no type of weights"));
        assert!(told("similarity_temperature = -1\n").contains("must be above 0"));
        let vectors = "objective = \"contrastive\"\n";
        assert!(told(&format!("{vectors}smoothing = 0.1\n")).contains("learns vectors"));
        assert!(told("rate = -1.0\n").contains("`train.rate` is -1"));
        assert!(told("method = \"qlora\"\n").contains("unknown variant `qlora`"));
        assert!(told("[train.head]\nfrozen = true\n").contains("says nothing of the task"));
        let balance = |more: &str| told(&format!("{more}[train.balance]\nmethod = \"cagrad\"\n"));
        assert!(balance("method = \"head\"\n").contains("share nothing"));
        assert!(balance("embedding_update = \"lazy\"\n").contains("whole gradients"));
        assert!(
            told("[train.balance]\nmethod = \"mgad\"\n").contains("no balancing method `mgad`")
        );
        let unknown = told("[train.balance]\nmethod = \"cagrad\"\nd = 1\n");
        assert!(unknown.contains("unknown parameter `d`"), "{unknown}");
        let low = told("[train.balance]\nmethod = \"cagrad\"\nc = -1\n");
        assert!(low.contains("`c` is -1"), "{low}");
        assert!(told("[train.new]\nmodel_type = \"vit\"\n").contains("both a base"));
        let none = Recipe::read("[base]\npath = \"m\"\n", "f", &[]).unwrap_err();
        assert!(none.to_string().contains("names no task"));
    }

    #[test]
    fn the_reference_page_has_every_key() {
        let page = include_str!("../../../../../docs/reference/training.md");
        let all = serde_json::to_value(Train::default()).unwrap();
        for (key, value) in all.as_object().unwrap() {
            assert!(
                page.contains(&format!("`{key}`")),
                "docs/reference/training.md lacks `{key}`"
            );
            for key in value.as_object().into_iter().flat_map(|o| o.keys()) {
                assert!(
                    page.contains(&format!("`{key}`")),
                    "docs/reference/training.md lacks `{key}`"
                );
            }
        }
    }
}
