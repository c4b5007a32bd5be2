//! The output vocabulary and where every row of it comes from.

use indexmap::IndexMap;
use serde_json::{Map, Value};

use crate::error::{MergeError, Result};
use crate::recipe::{TokenName, TokenSource, Tokenizer, Vocabulary};

use super::source::{Vocab, plain_entry};

/// Largest accepted `pad_to_multiple_of`; hardware wants 64 to 256.
const MAX_PAD: usize = 65_536;

/// One model of the recipe, in the order of [`crate::recipe::Recipe::models`].
#[derive(Debug, Clone)]
pub struct Input {
    /// Name in messages.
    pub name: String,
    /// Folder in messages.
    pub folder: String,
    /// Its tokens; `None` if it has no tokenizer files.
    pub vocab: Option<Vocab>,
    /// Rows of its input embedding. Tokens with ids at or above it are dropped.
    pub rows: usize,
}

/// Where one input's row for one output token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// This row of the input itself.
    Own(u32),
    /// The mean of rows `(model, row)`, summed in this order; one entry is a plain copy.
    Mean(Vec<(usize, u32)>),
    /// Zeros.
    Zero,
    /// Padding: the mean of this input's assembled rows `0..size`.
    MeanOfReal,
}

/// The output vocabulary.
#[derive(Debug, Clone, PartialEq)]
pub struct VocabPlan {
    /// Token of each row; `None` where the vocabulary that decides the order skips an id.
    pub tokens: Vec<Option<String>>,
    /// Rows with tokens: `tokens.len()`.
    pub size: usize,
    /// Rows of the output, at least `size`; config.json's `vocab_size`.
    pub padded_size: usize,
    /// Per input: `padded_size` rows.
    pub rows: Vec<Vec<Row>>,
    /// Index of the input whose tokenizer files are copied.
    pub files_from: usize,
    /// `tokenizer.json` to write instead of that input's; `None` if its files fit unchanged.
    pub tokenizer_json: Option<Vec<u8>>,
    /// Added tokens of the output that the copied files lack: `added_tokens` entries in id order.
    pub new_tokens: Vec<Map<String, Value>>,
    /// Things to tell the user.
    pub warnings: Vec<String>,
}

impl VocabPlan {
    /// Brings `tokenizer_config.json` in line: entries of `added_tokens_decoder` beyond the vocabulary go, new ones
    /// come. Files without that key are left as they are.
    pub fn edit_tokenizer_config(&self, config: &Value) -> Value {
        let mut out = config.clone();
        if let Some(Value::Object(decoder)) = out.get_mut("added_tokens_decoder") {
            decoder.retain(|id, entry| {
                id.parse::<usize>().is_ok_and(|id| {
                    self.tokens.get(id).is_some_and(|token| {
                        token.as_deref() == entry.get("content").and_then(Value::as_str)
                    })
                })
            });
            for entry in &self.new_tokens {
                let mut entry = entry.clone();
                if let Some(id) = entry.shift_remove("id") {
                    decoder.insert(id.to_string(), Value::Object(entry));
                }
            }
        }
        out
    }
}

/// Decides the output vocabulary and every row of it.
///
/// `base` is the base of the merge (else the first input stands for it where the rules name a base). Per token and
/// input: the input's own row if it has the token; else the row that `spec.tokens` names; else the row of the only
/// input that has it; else the base's; else the mean over the inputs that have it; a token nobody has gets zeros and
/// a warning. `force` uses the default row in every input.
pub fn plan(inputs: &[Input], base: Option<usize>, spec: &Tokenizer) -> Result<VocabPlan> {
    let mut warnings = Vec::new();
    if inputs.is_empty() {
        return Err(MergeError::Internal("vocabulary of no inputs".into()));
    }
    let first = match spec.source {
        Vocabulary::Model(m) => m,
        Vocabulary::Union | Vocabulary::Base => base.unwrap_or(0),
    };
    let vocabs = load(inputs, base.unwrap_or(0), &mut warnings)?;
    let pad = spec.pad_to_multiple_of.unwrap_or(0);
    if pad > MAX_PAD {
        return Err(MergeError::plan(
            "vocabulary",
            format!("pad_to_multiple_of is {pad}; the most is {MAX_PAD}"),
        ));
    }

    // Output tokens: those of `first` at their ids, then new ones.
    let size = vocabs[first].tokens.values().map(|t| t.id + 1).max();
    let mut tokens: Vec<Option<String>> = vec![None; size.unwrap_or(0)];
    let mut place: IndexMap<String, usize> = IndexMap::new();
    for (text, token) in &vocabs[first].tokens {
        tokens[token.id].get_or_insert_with(|| text.clone());
        place.insert(text.clone(), token.id);
    }
    let gaps = tokens.iter().filter(|t| t.is_none()).count();
    let mut new_tokens = Vec::new();
    let mut add = |text: &str, entry: Option<&Map<String, Value>>, tokens: &mut Vec<_>| {
        let id = tokens.len();
        let mut entry = entry.cloned().unwrap_or_else(|| plain_entry(id, text));
        entry.insert("id".into(), Value::from(id));
        tokens.push(Some(text.to_owned()));
        new_tokens.push(entry);
        id
    };
    if spec.source == Vocabulary::Union {
        for (m, vocab) in vocabs.iter().enumerate() {
            let mut plain = 0;
            for (text, token) in &vocab.tokens {
                if !place.contains_key(text) {
                    plain += usize::from(token.added.is_none());
                    let id = add(text, token.added.as_ref(), &mut tokens);
                    place.insert(text.clone(), id);
                }
            }
            if plain > 0 {
                warnings.push(format!(
                    "{plain} tokens that only `{}` has are learned pieces of its vocabulary; in the output they are \
                     added tokens, so text that uses them is cut differently than by `{}` itself",
                    inputs[m].name, inputs[m].name
                ));
            }
        }
    }
    for (text, ..) in &spec.tokens {
        if !place.contains_key(text) {
            let entry = vocabs
                .iter()
                .find_map(|v| v.tokens.get(text)?.added.as_ref());
            let id = add(text, entry, &mut tokens);
            place.insert(text.clone(), id);
        }
    }
    if gaps > 0 && !new_tokens.is_empty() {
        warnings.push(format!(
            "`{}` skips {gaps} token ids; tokenizer programs may number the added tokens from the gap on",
            inputs[first].name
        ));
    }
    let size = tokens.len();
    if u32::try_from(size + pad).is_err() {
        return Err(MergeError::plan(
            "vocabulary",
            format!("the output would have {size} tokens"),
        ));
    }
    let padded_size = if pad > 1 {
        size.next_multiple_of(pad)
    } else {
        size
    };

    let rows = assign(&tokens, inputs, &vocabs, base, first, spec, &mut warnings)?;
    let rows = rows
        .into_iter()
        .map(|mut r| {
            r.resize(padded_size, Row::MeanOfReal);
            r
        })
        .collect();
    let changed = !new_tokens.is_empty() || vocabs[first].dropped;
    let tokenizer_json = changed
        .then(|| write_json(&vocabs[first], &inputs[first], &new_tokens))
        .transpose()?;
    Ok(VocabPlan {
        tokens,
        size,
        padded_size,
        rows,
        files_from: first,
        tokenizer_json,
        new_tokens,
        warnings,
    })
}

/// An input's tokens that have rows.
struct Loaded {
    tokens: IndexMap<String, super::Token>,
    json: Option<Value>,
    dropped: bool,
}

fn load(inputs: &[Input], base: usize, warnings: &mut Vec<String>) -> Result<Vec<Loaded>> {
    inputs
        .iter()
        .map(|input| {
            let vocab = match (&input.vocab, &inputs[base].vocab) {
                (Some(vocab), _) => vocab,
                (None, Some(vocab)) if input.rows == inputs[base].rows => {
                    warnings.push(format!(
                        "`{}` has no tokenizer files; its {} rows are taken to mean the same tokens as those of `{}`",
                        input.name, input.rows, inputs[base].name
                    ));
                    vocab
                }
                _ => {
                    return Err(MergeError::plan(
                        "no-tokenizer",
                        format!(
                            "`{}` has no tokenizer.json (nor vocab.txt or vocab.json), so its embedding rows cannot be \
                             matched to tokens",
                            input.name
                        ),
                    )
                    .at(format!("{}/tokenizer.json", input.folder))
                    .hint("copy the model's tokenizer.json into its folder")
                    .hint(
                        "without it vocabulary tensors merge only if their shapes are equal (leave out the tokenizer \
                         settings) or cut with --unsafe-truncate-embeddings",
                    ));
                }
            };
            let mut vocab = vocab.clone();
            let dropped = vocab.drop_beyond(input.rows);
            if dropped > 0 {
                warnings.push(format!(
                    "`{}` has {dropped} tokens with ids beyond its {} embedding rows; they are dropped",
                    input.name, input.rows
                ));
            }
            Ok(Loaded {
                tokens: vocab.tokens,
                json: vocab.json,
                dropped: dropped > 0,
            })
        })
        .collect()
}

/// Rows of every input for the real tokens.
fn assign(
    tokens: &[Option<String>],
    inputs: &[Input],
    vocabs: &[Loaded],
    base: Option<usize>,
    first: usize,
    spec: &Tokenizer,
    warnings: &mut Vec<String>,
) -> Result<Vec<Vec<Row>>> {
    let mut rows: Vec<Vec<Row>> = vec![Vec::with_capacity(tokens.len()); inputs.len()];
    let fixed: IndexMap<&str, (&Option<TokenSource>, bool)> = spec
        .tokens
        .iter()
        .map(|(text, source, force)| (text.as_str(), (source, *force)))
        .collect();
    let mut orphans = Vec::new();
    for (out, token) in tokens.iter().enumerate() {
        let Some(token) = token else {
            // An id without a token: nothing to match by, so everyone gets the row of the model that decides the order.
            for (m, list) in rows.iter_mut().enumerate() {
                list.push(if m == first {
                    Row::Own(out as u32)
                } else {
                    Row::Mean(vec![(first, out as u32)])
                });
            }
            continue;
        };
        let own: Vec<Option<u32>> = vocabs
            .iter()
            .map(|v| v.tokens.get(token).map(|t| t.id as u32))
            .collect();
        let (source, force) = fixed.get(token.as_str()).copied().unwrap_or((&None, false));
        let default = match source {
            Some(source) => fixed_row(token, source, inputs, vocabs)?,
            None if own.iter().all(Option::is_some) && !force => Row::Zero,
            None => {
                let have: Vec<(usize, u32)> = own
                    .iter()
                    .enumerate()
                    .filter_map(|(m, row)| Some((m, (*row)?)))
                    .collect();
                match base.and_then(|b| Some((b, own[b]?))) {
                    _ if have.is_empty() => {
                        orphans.push(token.as_str());
                        Row::Zero
                    }
                    Some(row) => Row::Mean(vec![row]),
                    None => Row::Mean(have),
                }
            }
        };
        for (list, own) in rows.iter_mut().zip(&own) {
            list.push(match own {
                Some(row) if !force => Row::Own(*row),
                _ => default.clone(),
            });
        }
    }
    if !orphans.is_empty() {
        warnings.push(format!(
            "no input has a row for {} token(s), which become zeros: {}{}",
            orphans.len(),
            orphans[..orphans.len().min(5)].join(", "),
            if orphans.len() > 5 { ", ..." } else { "" }
        ));
    }
    Ok(rows)
}

fn fixed_row(
    token: &str,
    source: &TokenSource,
    inputs: &[Input],
    vocabs: &[Loaded],
) -> Result<Row> {
    let find = |model: usize, wanted: &str| {
        vocabs[model].tokens.get(wanted).map_or_else(
            || {
                Err(MergeError::plan(
                    "token-source",
                    format!(
                        "tokenizer.tokens: {token:?} is to come from `{}`, which has no token {wanted:?}",
                        inputs[model].name
                    ),
                ))
            },
            |t| Ok(Row::Mean(vec![(model, t.id as u32)])),
        )
    };
    match source {
        TokenSource::Zero => Ok(Row::Zero),
        TokenSource::Model(m) => find(*m, token),
        TokenSource::ModelToken {
            model,
            token: TokenName::Text(wanted),
        } => find(*model, wanted),
        TokenSource::ModelToken {
            model,
            token: TokenName::Id(id),
        } => {
            if *id < inputs[*model].rows {
                Ok(Row::Mean(vec![(*model, *id as u32)]))
            } else {
                Err(MergeError::plan(
                    "token-source",
                    format!(
                        "tokenizer.tokens: {token:?} is to be token {id} of `{}`, which has {} rows",
                        inputs[*model].name, inputs[*model].rows
                    ),
                ))
            }
        }
    }
}

/// The edited `tokenizer.json`, formatted as the tokenizers library does.
fn write_json(vocab: &Loaded, input: &Input, new: &[Map<String, Value>]) -> Result<Vec<u8>> {
    let Some(json) = &vocab.json else {
        return Err(MergeError::plan(
            "no-tokenizer",
            format!(
                "the output's vocabulary differs from that of `{}`, and only a tokenizer.json can be edited",
                input.name
            ),
        )
        .at(format!("{}/tokenizer.json", input.folder))
        .hint("save the model's tokenizer as a fast tokenizer, which writes tokenizer.json"));
    };
    let mut json = json.clone();
    if let Some(map) = json.as_object_mut() {
        let added = map
            .entry("added_tokens")
            .or_insert_with(|| Value::Array(Vec::new()));
        if let Some(list) = added.as_array_mut() {
            list.extend(new.iter().cloned().map(Value::Object));
        }
    }
    serde_json::to_vec_pretty(&json).map_err(|e| MergeError::Internal(e.to_string()))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
