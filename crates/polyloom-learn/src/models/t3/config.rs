//! What a configuration says of stems, and which of them reads a picture.

use indexmap::IndexMap;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// What `config.json` says.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The word of this family.
    pub model_type: String,
    /// Width of the stream, in stems, trunk and decoders.
    pub hidden_size: usize,
    /// Layers of the trunk.
    pub num_hidden_layers: usize,
    /// Heads of every attention.
    pub num_attention_heads: usize,
    /// Width inside of the feed-forward parts.
    pub intermediate_size: usize,
    /// Layers of every stem.
    #[serde(default = "one")]
    pub num_stem_layers: usize,
    /// Layers of every decoder; without them there are no decoders.
    #[serde(default)]
    pub num_decoder_layers: Option<usize>,
    /// Activation of the feed-forward parts.
    #[serde(default = "gelu")]
    pub hidden_act: String,
    /// Whether queries, keys and values have a bias.
    #[serde(default = "yes")]
    pub qkv_bias: bool,
    /// Added to variances.
    #[serde(default = "eps")]
    pub layer_norm_eps: f32,
    /// Dropout of the stream.
    #[serde(default)]
    pub hidden_dropout_prob: f32,
    /// Dropout of the probabilities of attention.
    #[serde(default)]
    pub attention_probs_dropout_prob: f32,
    /// Stems by the name of their sensor.
    pub stems: IndexMap<String, StemConfig>,
    /// Type of the weights on disk, which the weights say themselves.
    #[serde(default)]
    pub dtype: Option<IgnoredAny>,
    /// The same by its older name.
    #[serde(default)]
    pub torch_dtype: Option<IgnoredAny>,
}

/// What `config.json` says of a stem.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StemConfig {
    /// Height and width of its pictures.
    pub image_size: usize,
    /// Their channels.
    pub num_channels: usize,
    /// Height and width of its patches, which divides that of pictures.
    pub patch_size: usize,
    /// Ids of the tasks whose pictures it reads; other tasks read by size.
    #[serde(default)]
    pub tasks: Vec<String>,
}

fn one() -> usize {
    1
}

fn gelu() -> String {
    "gelu".to_owned()
}

fn yes() -> bool {
    true
}

fn eps() -> f32 {
    1e-12
}

impl StemConfig {
    /// Whether it names a task, or the task of a target (`task/target`).
    fn names(&self, task: &str, of_target: bool) -> bool {
        let of = |t: &String| match of_target {
            false => t == task,
            true => task
                .strip_prefix(t.as_str())
                .is_some_and(|r| r.starts_with('/')),
        };
        self.tasks.iter().any(of)
    }

    /// Height, width and channels of its pictures.
    #[must_use]
    pub fn size(&self) -> [usize; 3] {
        [self.image_size, self.image_size, self.num_channels]
    }
}

/// A size of pictures in words.
#[must_use]
pub fn sized([height, width, channels]: [usize; 3]) -> String {
    format!("{height} x {width} x {channels}")
}

/// The stem that reads the pictures of a task: that which names the task, else the only one for pictures of `size` (height,
/// width, channels). Its place among the stems.
///
/// # Errors
/// What is wrong, in words: pictures of a size that no stem reads, or not the one of the task, or that several do.
pub fn stem_for(
    stems: &IndexMap<String, StemConfig>,
    task: Option<&str>,
    size: [usize; 3],
) -> Result<usize, String> {
    let by = |of_target| {
        let mut all = stems.iter().enumerate();
        all.find(|(_, (_, s))| task.is_some_and(|task| s.names(task, of_target)))
    };
    if let Some((place, (name, stem))) = by(false).or_else(|| by(true)) {
        return match stem.size() == size {
            true => Ok(place),
            false => Err(format!(
                "a picture of {}; its stem `{name}` reads {}",
                sized(size),
                sized(stem.size())
            )),
        };
    }
    let fitting = stems.iter().enumerate();
    let fitting: Vec<(usize, &String)> = fitting
        .filter(|(_, (_, s))| s.size() == size)
        .map(|(place, (name, _))| (place, name))
        .collect();
    match fitting[..] {
        [(place, _)] => Ok(place),
        [] => {
            let all = stems.iter();
            let all: Vec<String> = all
                .map(|(name, s)| format!("`{name}` {}", sized(s.size())))
                .collect();
            Err(format!(
                "a picture of {}, which no stem reads; there are {}",
                sized(size),
                all.join(", ")
            ))
        }
        _ => {
            let names = fitting.iter().map(|(_, name)| format!("`{name}`"));
            let names: Vec<String> = names.collect();
            Err(format!(
                "a picture of {}, which the stems {} read; a task that one of them names chooses it",
                sized(size),
                names.join(" and ")
            ))
        }
    }
}

/// A line for each stem of what a `config.json` says: pictures, patches, tasks. None for other models.
#[must_use]
pub fn told(config: &serde_json::Value) -> Vec<String> {
    if config["model_type"] != super::MODEL_TYPE {
        return Vec::new();
    }
    let stems = IndexMap::<String, StemConfig>::deserialize(&config["stems"]);
    let line = |(name, s): (String, StemConfig)| {
        format!(
            "stem `{name}`: pictures of {} in patches of {}, of {}",
            sized(s.size()),
            s.patch_size,
            s.tasks.join(", ")
        )
    };
    stems.unwrap_or_default().into_iter().map(line).collect()
}
