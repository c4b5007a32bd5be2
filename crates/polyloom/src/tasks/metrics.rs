//! The names of metrics that a task may ask for, with their direction.
//!
//! Names are those of the evaluation specification; a task that names anything else is refused with the nearest name.

/// A metric by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Name in specs.
    pub name: &'static str,
    /// Whether more is better.
    pub higher_is_better: bool,
}

/// The metrics where less is better; all others grow with quality.
const LOWER: &[&str] = &[
    "log_loss",
    "brier_score",
    "ece",
    "mce",
    "mse",
    "rmse",
    "rmse_ratio",
    "mae",
    "median_absolute_error",
    "max_error",
    "mape",
    "hamming_loss",
    "ter",
    "perplexity",
    "word_perplexity",
    "byte_perplexity",
    "bits_per_byte",
    "abs_err",
    "rel_err",
    "normal_angle_mean",
    "normal_angle_median",
];

const HIGHER: &[&str] = &[
    "acc",
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
    "macro_f1",
    "micro_f1",
    "weighted_f1",
    "samples_f1",
    "mcc",
    "cohen_kappa",
    "subset_accuracy",
    "hamming_score",
    "jaccard",
    "roc_auc",
    "average_precision",
    "pr_auc",
    "top_k_accuracy",
    "nauc",
    "r2",
    "explained_variance",
    "pearson",
    "spearman",
    "kendall",
    "ndcg",
    "ndcg_ties",
    "map",
    "mrr",
    "reciprocal_rank",
    "recall_at_k",
    "precision_at_k",
    "success_at_k",
    "hit_rate",
    "r_precision",
    "bpref",
    "capped_recall",
    "p_mrr",
    "v_measure",
    "homogeneity",
    "completeness",
    "nmi",
    "ami",
    "ari",
    "bleu",
    "chrf",
    "chrf++",
    "rouge1",
    "rouge2",
    "rouge_l",
    "rouge_lsum",
    "exact_match",
    "exact_str_match",
    "squad_em",
    "squad_f1",
    "acc_norm",
    "acc_bytes",
    "acc_token",
    "acc_mutual_info",
    "multiple_choice_grade",
    "pass_at_k",
    "pass_hat_k",
    "c_index",
    "span_f1",
    "span_f1_relaxed",
    "token_f1",
    "miou",
    "pixel_acc",
    "normal_angle_within_11",
    "normal_angle_within_22",
    "normal_angle_within_30",
    "edge_f1",
    "node_f1",
    "edge_match_f1",
];

/// All metric names, those that grow with quality first.
#[must_use]
pub fn names() -> Vec<&'static str> {
    HIGHER.iter().chain(LOWER).copied().collect()
}

/// A metric by name.
#[must_use]
pub fn find(name: &str) -> Option<Known> {
    let known = |list: &[&'static str], higher_is_better| {
        let name = list.iter().find(|n| **n == name)?;
        Some(Known {
            name,
            higher_is_better,
        })
    };
    known(HIGHER, true).or_else(|| known(LOWER, false))
}
