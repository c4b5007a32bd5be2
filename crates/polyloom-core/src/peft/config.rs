//! `adapter_config.json`: read in three classes of keys, written with every key we know.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::matching::{Names, PatternError, Targets, pattern_key};
use crate::checkpoint::read_json;
use crate::error::{Error, Result};

/// The adapter types with a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeftType {
    /// LoRA, rsLoRA, DoRA, PiSSA, OLoRA.
    Lora,
    /// IA3: learned scales of activations.
    Ia3,
    /// Poly and MHR: skills mixed per task.
    Poly,
}

impl PeftType {
    /// The word of `peft_type`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Lora => "LORA",
            Self::Ia3 => "IA3",
            Self::Poly => "POLY",
        }
    }
}

/// What `bias` says about the biases stored beside the adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bias {
    /// None are stored.
    #[default]
    None,
    /// Every bias of the model.
    All,
    /// The biases of adapted modules.
    LoraOnly,
}

/// How the base was changed before training, and must be changed again before the adapter fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BaseChange {
    /// The base is used as it is.
    #[default]
    None,
    /// PiSSA: the best rank-r part of `W` was taken out.
    Pissa,
    /// OLoRA: the first r columns of the QR factors of `W` were taken out.
    Olora,
}

/// A parsed `adapter_config.json`. Keys without a field here stay in [`Self::raw`] and are written back.
#[derive(Debug, Clone)]
pub struct AdapterConfig {
    /// The file, for messages.
    pub path: PathBuf,
    /// Every key of the file.
    pub raw: Map<String, Value>,
    /// Type of the adapter.
    pub peft_type: PeftType,
    /// Which modules are meant.
    pub targets: Targets,
    /// `r` (LoRA and Poly; 0 for IA3).
    pub rank: usize,
    /// `lora_alpha`.
    pub alpha: f64,
    /// `rank_pattern` in file order.
    pub rank_pattern: Vec<(String, usize)>,
    /// `alpha_pattern` in file order.
    pub alpha_pattern: Vec<(String, f64)>,
    /// `use_rslora`: scale by alpha / sqrt(r).
    pub rslora: bool,
    /// `use_dora`: learned row norms.
    pub dora: bool,
    /// `lora_bias`: B has a bias of its own.
    pub lora_bias: bool,
    /// Weights are stored `[in, out]`.
    pub fan_in_fan_out: bool,
    /// Stored biases.
    pub bias: Bias,
    /// How the base must be changed first.
    pub base_change: BaseChange,
    /// IA3: modules whose input (not output) is scaled.
    pub feedforward: Option<Names>,
    /// Poly: tasks, skills and splits.
    pub poly: (usize, usize, usize),
    /// Keys that were ignored.
    pub warnings: Vec<String>,
}

/// Keys of every PEFT type.
const COMMON: &[&str] = &[
    "peft_type",
    "task_type",
    "auto_mapping",
    "base_model_name_or_path",
    "revision",
    "peft_version",
    "inference_mode",
    "target_modules",
    "exclude_modules",
    "modules_to_save",
    "fan_in_fan_out",
];

/// LoRA keys that are used or have no effect on merged weights.
const LORA: &[&str] = &[
    "r",
    "lora_alpha",
    "lora_dropout",
    "layers_to_transform",
    "layers_pattern",
    "rank_pattern",
    "alpha_pattern",
    "bias",
    "lora_bias",
    "use_rslora",
    "use_dora",
    "init_lora_weights",
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "velora_config",
    "runtime_config",
    "megatron_core",
    "ensure_weight_tying",
    "qalora_group_size",
];

/// LoRA keys that change the arithmetic in ways without a reader: an error unless they hold a default.
const UNSUPPORTED: &[&str] = &[
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "kasa_config",
    "monteclora_config",
    "arrow_config",
    "megatron_config",
];

const IA3: &[&str] = &["feedforward_modules", "init_ia3_weights"];
const POLY: &[&str] = &[
    "r",
    "init_weights",
    "poly_type",
    "n_tasks",
    "n_skills",
    "n_splits",
];

impl AdapterConfig {
    /// Reads and checks `adapter_config.json`.
    pub fn read(path: &Path) -> Result<Self> {
        match read_json(path)? {
            Value::Object(raw) => Self::from_map(path, raw),
            _ => Err(Error::format(path, "is not a JSON object")),
        }
    }

    /// Checks the keys of a configuration; `path` is for messages.
    pub fn from_map(path: &Path, raw: Map<String, Value>) -> Result<Self> {
        let peft_type = match raw.get("peft_type") {
            Some(Value::String(s)) if s == "LORA" => PeftType::Lora,
            Some(Value::String(s)) if s == "IA3" => PeftType::Ia3,
            Some(Value::String(s)) if s == "POLY" => PeftType::Poly,
            Some(other) => {
                return Err(Error::format(
                    path,
                    format!("`peft_type` is {other}, which has no reader"),
                )
                .with_hint("LORA, IA3 and POLY adapters are read"));
            }
            None => {
                return Err(Error::format(path, "has no `peft_type`")
                    .with_hint("is this the configuration of a PEFT adapter?"));
            }
        };
        let keys = Keys { path, raw: &raw };
        let own: &[&str] = match peft_type {
            PeftType::Lora => LORA,
            PeftType::Ia3 => IA3,
            PeftType::Poly => POLY,
        };
        let warnings = raw
            .keys()
            .filter(|k| {
                let k = k.as_str();
                let unsupported = peft_type == PeftType::Lora && UNSUPPORTED.contains(&k);
                !COMMON.contains(&k) && !own.contains(&k) && !unsupported
            })
            .map(|k| format!("unknown key `{k}` is ignored"))
            .collect();
        let mut base_change = BaseChange::None;
        if peft_type == PeftType::Lora {
            for key in UNSUPPORTED {
                if let Some(value) = raw.get(*key)
                    && !is_default(value)
                {
                    return Err(unsupported(path, key, value));
                }
            }
            match raw.get("init_lora_weights") {
                None | Some(Value::Null | Value::Bool(_)) => {}
                Some(Value::String(s)) => match s.to_ascii_lowercase().as_str() {
                    "gaussian" | "eva" | "orthogonal" | "true" | "false" => {}
                    "pissa" => base_change = BaseChange::Pissa,
                    "olora" => base_change = BaseChange::Olora,
                    _ => {
                        return Err(unsupported(
                            path,
                            "init_lora_weights",
                            &raw["init_lora_weights"],
                        ));
                    }
                },
                Some(other) => return Err(unsupported(path, "init_lora_weights", other)),
            }
        }
        let bias = match raw.get("bias") {
            None | Some(Value::Null) => Bias::None,
            Some(Value::String(s)) if s == "none" => Bias::None,
            Some(Value::String(s)) if s == "all" => Bias::All,
            Some(Value::String(s)) if s == "lora_only" => Bias::LoraOnly,
            Some(other) => {
                return Err(Error::format(
                    path,
                    format!("`bias` is {other}; expected none, all or lora_only"),
                ));
            }
        };
        let mut config = Self {
            path: path.to_owned(),
            peft_type,
            targets: Targets {
                target: keys.names("target_modules")?,
                exclude: keys.names("exclude_modules")?,
                layers: keys.layers()?,
                layers_pattern: keys.strings("layers_pattern")?,
                save: keys.strings("modules_to_save")?,
            },
            rank: if peft_type == PeftType::Ia3 {
                0
            } else {
                keys.size("r", 8)?
            },
            alpha: keys.number("lora_alpha", 8.0)?,
            rank_pattern: keys
                .pattern("rank_pattern")?
                .into_iter()
                .map(|(k, v)| (k, v.max(0.0) as usize))
                .collect(),
            alpha_pattern: keys.pattern("alpha_pattern")?,
            rslora: keys.flag("use_rslora")?,
            dora: keys.flag("use_dora")?,
            lora_bias: keys.flag("lora_bias")?,
            fan_in_fan_out: keys.flag("fan_in_fan_out")?,
            bias,
            base_change,
            feedforward: keys.names("feedforward_modules")?,
            poly: (
                keys.size("n_tasks", 1)?,
                keys.size("n_skills", 4)?,
                keys.size("n_splits", 1)?,
            ),
            warnings,
            raw: Map::new(),
        };
        config.raw = raw;
        Ok(config)
    }

    /// Rank that the configuration gives to a module.
    pub fn rank_of(&self, module: &str) -> Result<usize> {
        let key = pattern_key(self.rank_pattern.iter().map(|(k, _)| k.as_str()), module)
            .map_err(|e| self.bad_pattern("rank_pattern", &e))?;
        Ok(key
            .and_then(|k| self.rank_pattern.iter().find(|(n, _)| n == k))
            .map_or(self.rank, |(_, r)| *r))
    }

    /// Alpha that the configuration gives to a module.
    pub fn alpha_of(&self, module: &str) -> Result<f64> {
        let key = pattern_key(self.alpha_pattern.iter().map(|(k, _)| k.as_str()), module)
            .map_err(|e| self.bad_pattern("alpha_pattern", &e))?;
        Ok(key
            .and_then(|k| self.alpha_pattern.iter().find(|(n, _)| n == k))
            .map_or(self.alpha, |(_, a)| *a))
    }

    /// Scaling of a module whose tensors have rank `rank`: alpha / r, or alpha / sqrt(r) with rsLoRA
    /// (arXiv 2312.03732).
    pub fn scaling(&self, module: &str, rank: usize) -> Result<f64> {
        let alpha = self.alpha_of(module)?;
        let rank = rank.max(1) as f64;
        Ok(if self.rslora {
            alpha / rank.sqrt()
        } else {
            alpha / rank
        })
    }

    /// Multiplies the scaling of every module by `weight`.
    pub(super) fn scale_alpha(&mut self, weight: f64) {
        self.alpha *= weight;
        for (_, alpha) in &mut self.alpha_pattern {
            *alpha *= weight;
        }
    }

    /// Turns a pattern error into one that names the file and the key.
    pub fn bad_pattern(&self, key: &str, error: &PatternError) -> Error {
        Error::format(&self.path, format!("`{key}`: {error}"))
            .with_hint("rewrite the pattern without look-around, or list the modules by name")
    }

    /// A new LoRA configuration with PEFT's defaults and `targets`, `rank` and alpha equal to it (scaling 1).
    pub fn lora(base: Option<&Value>, targets: &Names, rank: usize) -> Map<String, Value> {
        let mut map = lora_defaults();
        if let Some(base) = base {
            map.insert("base_model_name_or_path".into(), base.clone());
        }
        map.insert("inference_mode".into(), json!(true));
        map.insert("target_modules".into(), targets.to_json());
        map.insert("r".into(), json!(rank));
        map.insert("lora_alpha".into(), json!(rank));
        map
    }
}

/// `adapter_config.json` as PEFT writes it: keys sorted, two spaces of indent, no newline at the end.
pub fn config_text(map: &Map<String, Value>) -> String {
    let sorted: std::collections::BTreeMap<_, _> = map.iter().map(|(k, v)| (k, sort(v))).collect();
    serde_json::to_string_pretty(&sorted).unwrap_or_default()
}

fn sort(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by(|a, b| a.0.cmp(b.0));
            Value::Object(
                entries
                    .into_iter()
                    .map(|(k, v)| (k.clone(), sort(v)))
                    .collect(),
            )
        }
        other => other.clone(),
    }
}

/// Every LoRA key of PEFT 0.21.2 with its default.
pub fn lora_defaults() -> Map<String, Value> {
    let Value::Object(map) = json!({
        "peft_type": "LORA", "task_type": null, "auto_mapping": null,
        "base_model_name_or_path": null, "revision": null, "peft_version": "0.21.2",
        "inference_mode": false, "r": 8, "lora_alpha": 8, "lora_dropout": 0.0,
        "target_modules": null, "exclude_modules": null, "layers_to_transform": null,
        "layers_pattern": null, "rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": null,
        "fan_in_fan_out": false, "bias": "none", "lora_bias": false, "use_rslora": false,
        "use_dora": false, "use_qalora": false, "qalora_group_size": 16, "init_lora_weights": true,
        "target_parameters": null, "trainable_token_indices": null, "layer_replication": null,
        "loftq_config": {}, "eva_config": null, "corda_config": null, "lora_ga_config": null,
        "kasa_config": null, "velora_config": null, "monteclora_config": null,
        "arrow_config": null, "use_bdlora": null, "alora_invocation_tokens": null,
        "megatron_config": null, "megatron_core": "megatron.core", "ensure_weight_tying": false,
    }) else {
        unreachable!("an object literal is an object")
    };
    map
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        _ => false,
    }
}

fn unsupported(path: &Path, key: &str, value: &Value) -> Error {
    Error::format(
        path,
        format!("`{key}` is {value}, which changes the arithmetic and is not supported"),
    )
    .with_hint("merge this adapter into its base with PEFT and use the result as a model")
}

/// Typed access to the keys, with errors that name file and key.
struct Keys<'a> {
    path: &'a Path,
    raw: &'a Map<String, Value>,
}

impl Keys<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.raw.get(key).filter(|v| !v.is_null())
    }

    fn bad(&self, key: &str, expected: &str) -> Error {
        Error::format(
            self.path,
            format!("`{key}` is {}; expected {expected}", self.raw[key]),
        )
    }

    fn flag(&self, key: &str) -> Result<bool> {
        match self.get(key) {
            None => Ok(false),
            Some(Value::Bool(b)) => Ok(*b),
            Some(_) => Err(self.bad(key, "true or false")),
        }
    }

    fn number(&self, key: &str, default: f64) -> Result<f64> {
        match self.get(key) {
            None => Ok(default),
            Some(v) => v
                .as_f64()
                .filter(|x| x.is_finite())
                .ok_or_else(|| self.bad(key, "a number")),
        }
    }

    fn size(&self, key: &str, default: usize) -> Result<usize> {
        match self.get(key) {
            None => Ok(default),
            Some(v) => v
                .as_u64()
                .filter(|&n| n > 0)
                .map(|n| n as usize)
                .ok_or_else(|| self.bad(key, "a positive integer")),
        }
    }

    fn strings(&self, key: &str) -> Result<Vec<String>> {
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Value::String(s)) => Ok(vec![s.clone()]),
            Some(Value::Array(list)) => list
                .iter()
                .map(|v| v.as_str().map(str::to_owned))
                .collect::<Option<_>>()
                .ok_or_else(|| self.bad(key, "a list of names")),
            Some(_) => Err(self.bad(key, "a name or a list of names")),
        }
    }

    fn names(&self, key: &str) -> Result<Option<Names>> {
        Ok(match self.get(key) {
            None => None,
            Some(Value::String(s)) => Some(Names::Pattern(s.clone())),
            Some(_) => Some(Names::List(self.strings(key)?)),
        })
    }

    fn layers(&self) -> Result<Option<Vec<i64>>> {
        let key = "layers_to_transform";
        Ok(match self.get(key) {
            None => None,
            Some(Value::Number(n)) => {
                Some(vec![n.as_i64().ok_or_else(|| self.bad(key, "an integer"))?])
            }
            Some(Value::Array(list)) if list.is_empty() => None,
            Some(Value::Array(list)) => Some(
                list.iter()
                    .map(Value::as_i64)
                    .collect::<Option<_>>()
                    .ok_or_else(|| self.bad(key, "a list of integers"))?,
            ),
            Some(_) => return Err(self.bad(key, "an integer or a list of integers")),
        })
    }

    fn pattern(&self, key: &str) -> Result<Vec<(String, f64)>> {
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Object(map)) => map
                .iter()
                .map(|(k, v)| Some((k.clone(), v.as_f64().filter(|x| x.is_finite())?)))
                .collect::<Option<_>>()
                .ok_or_else(|| self.bad(key, "an object of numbers")),
            Some(_) => Err(self.bad(key, "an object of numbers")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: Value) -> Result<AdapterConfig> {
        let Value::Object(map) = value else {
            panic!("object")
        };
        AdapterConfig::from_map(Path::new("adapter_config.json"), map)
    }

    #[test]
    fn the_three_classes_of_keys() {
        let read =
            parse(json!({"peft_type": "LORA", "lora_dropout": 0.3, "shiny_new": 1})).unwrap();
        assert_eq!(read.warnings, ["unknown key `shiny_new` is ignored"]);
        assert_eq!((read.rank, read.alpha), (8, 8.0));
        for (key, value) in [
            ("use_qalora", json!(true)),
            ("layer_replication", json!([[0, 2]])),
            ("init_lora_weights", json!("pissa_niter_4")),
            ("init_lora_weights", json!("loftq")),
        ] {
            let error =
                parse(json!({"peft_type": "LORA", key: value.clone()})).expect_err("unsupported");
            let text = error.to_string();
            assert!(
                text.contains(key) && text.contains(&value.to_string()),
                "{text}"
            );
        }
        assert!(parse(json!({"peft_type": "LORA", "use_qalora": false})).is_ok());
        assert!(parse(json!({"peft_type": "LOHA"})).is_err());
        assert!(parse(json!({})).is_err());
    }

    #[test]
    fn scaling_uses_the_patterns() {
        let config = parse(json!({
            "peft_type": "LORA", "r": 4, "lora_alpha": 8, "alpha_pattern": {"v": 3},
            "rank_pattern": {"q": 2}
        }))
        .unwrap();
        assert_eq!(config.rank_of("a.q").unwrap(), 2);
        assert_eq!(config.scaling("a.q", 2).unwrap(), 4.0);
        assert_eq!(config.scaling("a.v", 4).unwrap(), 0.75);
    }

    #[test]
    fn every_default_is_a_known_key() {
        let config = parse(Value::Object(lora_defaults())).unwrap();
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    }
}
