//! What tensor names say: layers, tied pairs, heads, optional buffers.

use std::collections::{BTreeMap, BTreeSet};

/// A list of equal blocks: `model.layers`, `encoder.layer`, `vision_model.encoder.layers` ...
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockList {
    /// Text before the index, without the dot.
    pub prefix: String,
    /// Number of blocks.
    pub count: usize,
}

/// The block lists of a model, longest prefix of names first seen first.
#[derive(Debug, Clone, Default)]
pub struct Blocks {
    lists: Vec<BlockList>,
}

impl Blocks {
    /// Finds the lists: a name's first numeric part is a block index if the indices under that prefix run 0..n without
    /// a gap and blocks hold two tensors or more (a `Sequential` head such as `classifier.0`, `classifier.2` does not).
    pub fn find<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut seen: BTreeMap<&str, BTreeMap<usize, usize>> = BTreeMap::new();
        let mut order: Vec<&str> = Vec::new();
        for name in names {
            if let Some((prefix, index, _)) = split_index(name) {
                if !seen.contains_key(prefix) {
                    order.push(prefix);
                }
                *seen.entry(prefix).or_default().entry(index).or_default() += 1;
            }
        }
        let lists = order
            .into_iter()
            .filter_map(|prefix| {
                let blocks = &seen[prefix];
                let gapless = blocks.keys().copied().eq(0..blocks.len());
                let full = blocks.values().all(|n| *n >= 2);
                (gapless && full).then(|| BlockList {
                    prefix: prefix.to_owned(),
                    count: blocks.len(),
                })
            })
            .collect();
        Self { lists }
    }

    /// All lists.
    pub fn lists(&self) -> &[BlockList] {
        &self.lists
    }

    /// The list and index a tensor belongs to.
    pub fn of(&self, name: &str) -> Option<(&BlockList, usize)> {
        let (prefix, index, _) = split_index(name)?;
        self.lists
            .iter()
            .find(|l| l.prefix == prefix)
            .map(|l| (l, index))
    }

    /// The list with most blocks (the first of equals).
    pub fn main(&self) -> Option<&BlockList> {
        self.lists.iter().rev().max_by_key(|l| l.count)
    }
}

/// `model.layers.3.mlp.up_proj.weight` -> (`model.layers`, 3, `mlp.up_proj.weight`), at the first numeric part.
pub fn split_index(name: &str) -> Option<(&str, usize, &str)> {
    let mut at = 0;
    for part in name.split('.') {
        let end = at + part.len();
        if at > 0
            && !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_digit())
            && end < name.len()
        {
            return part
                .parse()
                .ok()
                .map(|i| (&name[..at - 1], i, &name[end + 1..]));
        }
        at = end + 1;
    }
    None
}

/// True for tensors that stand before the layers (embeddings); the rest outside layers stand after them.
pub fn before_layers(name: &str) -> bool {
    [
        "embed",
        "wte",
        "wpe",
        "shared.weight",
        "cls_token",
        "class_embedding",
        "pre_layrnorm",
        "patch",
    ]
    .iter()
    .any(|w| name.contains(w))
}

/// The input embedding an output head is tied to, if `name` is such a head.
pub fn tied_to<'a>(name: &str, has: impl Fn(&str) -> bool + 'a) -> Option<String> {
    let stem = name
        .strip_suffix("lm_head.weight")
        .or_else(|| name.strip_suffix("embed_out.weight"))?;
    [
        "model.embed_tokens.weight",
        "embed_tokens.weight",
        "transformer.wte.weight",
        "wte.weight",
        "shared.weight",
        "model.decoder.embed_tokens.weight",
        "model.language_model.embed_tokens.weight",
    ]
    .iter()
    .map(|e| format!("{stem}{e}"))
    .find(|e| has(e))
}

/// Buffers and heads that architectures treat as optional: they may be missing in some inputs.
pub fn is_optional(name: &str) -> bool {
    name.ends_with("rotary_emb.inv_freq")
        || name.ends_with("position_ids")
        || name.ends_with("masked_bias")
        || name.ends_with("lm_head.weight")
        || name.ends_with("lm_head.bias")
        || name.contains("pooler.")
}

/// Names of classification and regression heads (kept apart by `heads = "separate"`).
pub fn is_head(name: &str) -> bool {
    let first = name.split('.').next().unwrap_or(name);
    matches!(
        first,
        "classifier" | "score" | "classification_head" | "head" | "qa_outputs" | "regressor"
    ) || name.starts_with("heads.")
}

/// Names of `model` that `base` lacks, with the prefix whose removal (or addition) would map all of them, if one does.
pub fn prefix_fix(missing: &[&str], base: &BTreeSet<&str>) -> Option<PrefixFix> {
    let first = missing.first()?;
    for (at, _) in first.match_indices('.') {
        let prefix = &first[..=at];
        let stripped = |n: &&str| {
            n.strip_prefix(prefix)
                .is_some_and(|rest| base.contains(rest))
        };
        if missing.iter().all(stripped) {
            return Some(PrefixFix::Strip(prefix.to_owned()));
        }
    }
    let longer = base.iter().find(|b| b.ends_with(&format!(".{first}")))?;
    let prefix = &longer[..longer.len() - first.len()];
    let all = missing
        .iter()
        .all(|n| base.contains(format!("{prefix}{n}").as_str()));
    all.then(|| PrefixFix::Add(prefix.to_owned()))
}

/// How to map one model's names onto another's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrefixFix {
    /// Remove this prefix.
    Strip(String),
    /// Put this prefix in front.
    Add(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_lists_are_lists_of_blocks() {
        let names = [
            "model.embed_tokens.weight",
            "model.layers.0.mlp.experts.0.up.weight",
            "model.layers.0.mlp.experts.1.up.weight",
            "model.layers.1.mlp.experts.0.up.weight",
            "model.layers.1.norm.1.bias",
            "classifier.0.weight",
            "classifier.2.weight",
        ];
        let blocks = Blocks::find(names.iter().copied());
        assert_eq!(
            blocks.lists(),
            [BlockList {
                prefix: "model.layers".into(),
                count: 2
            }]
        );
        assert_eq!(
            blocks.of("model.layers.1.norm.1.bias").map(|b| b.1),
            Some(1)
        );
        assert!(blocks.of("classifier.0.weight").is_none());
    }

    #[test]
    fn prefixes_are_found_both_ways() {
        let base: BTreeSet<&str> = ["encoder.layer.0.w", "embeddings.w"].into();
        let fix = prefix_fix(&["bert.encoder.layer.0.w", "bert.embeddings.w"], &base);
        assert_eq!(fix, Some(PrefixFix::Strip("bert.".into())));
        let base: BTreeSet<&str> = ["bert.encoder.layer.0.w", "bert.embeddings.w"].into();
        assert_eq!(
            prefix_fix(&["embeddings.w"], &base),
            Some(PrefixFix::Add("bert.".into()))
        );
        assert_eq!(prefix_fix(&["other.w"], &base), None);
    }

    #[test]
    fn tied_heads_find_their_embedding() {
        let has = |n: &str| n == "model.embed_tokens.weight";
        assert_eq!(
            tied_to("lm_head.weight", has).as_deref(),
            Some("model.embed_tokens.weight")
        );
        assert_eq!(tied_to("model.norm.weight", has), None);
    }
}
