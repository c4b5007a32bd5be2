//! Usual names of columns, by preference.

/// The system.
pub const SYSTEM: &[&str] = &[
    "system",
    "model",
    "method",
    "model_name",
    "model/adapter",
    "models",
    "name",
];
/// The task.
pub const TASK: &[&str] = &[
    "task",
    "task_name",
    "dataset",
    "benchmark",
    "subject",
    "category",
];
/// The score.
pub const VALUE: &[&str] = &[
    "value",
    "score",
    "result",
    "main_score",
    "correct",
    "passes",
];
/// The example.
pub const ID: &[&str] = &[
    "id",
    "doc_id",
    "example_id",
    "sample",
    "sample_id",
    "question_id",
    "item",
    "index",
];
/// What is repeated.
pub const REPLICATE: &[&str] = &[
    "seed",
    "run",
    "checkpoint",
    "step",
    "instruction",
    "prompt_id",
    "template",
    "repeat",
    "replicate",
    "trial",
    "attempt",
    "turn",
];
/// What a system costs, and the name of the cost.
pub const COSTS: &[(&str, &str)] = &[
    ("params", "params"),
    ("parameters", "params"),
    ("n_params", "params"),
    ("bytes", "bytes"),
    ("size", "bytes"),
    ("seconds", "seconds"),
    ("time", "seconds"),
    ("tokens", "tokens"),
    ("n_tokens", "tokens"),
];
/// Columns of long tables that are no tags.
pub const KNOWN: &[&str] = &[
    "metric",
    "n",
    "stderr",
    "se",
    "low",
    "high",
    "ci_low",
    "ci_high",
    "higher_is_better",
    "chance",
    "maximum",
    "expert",
    "weight",
    "samples",
    "hash",
    "task_hash",
    "target",
    "prediction",
    "label",
    "prompt",
];
/// Tags that rows of single examples may carry.
pub const TAGS: &[&str] = &[
    "skill",
    "domain",
    "modality",
    "capability",
    "language",
    "family",
    "type",
    "group",
    "category",
];
/// What stands for a missing score.
pub const ABSENT: &[&str] = &["nan", "na", "n/a", "null", "none", "-", "--", "unsupported"];
