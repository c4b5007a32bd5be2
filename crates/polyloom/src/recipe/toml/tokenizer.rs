//! `[tokenizer]`.

use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::inputs::byte_of;
use super::{Key, Reader, json};
use crate::recipe::{Recipe, TokenName, TokenSource, Tokenizer, Vocabulary};

impl Reader<'_> {
    pub(super) fn tokenizer(&mut self, table: &DeTable, recipe: &mut Recipe) {
        self.check_keys(
            table,
            &["source", "tokens", "pad_to_multiple_of"],
            " in `[tokenizer]`",
        );
        let mut out = recipe.tokenizer.clone().unwrap_or(Tokenizer {
            source: Vocabulary::Union,
            tokens: Vec::new(),
            pad_to_multiple_of: None,
        });
        match self.text(table, "source").as_deref() {
            None => {}
            Some("union") => out.source = Vocabulary::Union,
            Some("base") => out.source = Vocabulary::Base,
            Some(name) => {
                if let Some(model) = self.named(name, byte_of(table, "source"), recipe) {
                    out.source = Vocabulary::Model(model);
                }
            }
        }
        if let Some((key, value)) = table.get_key_value("pad_to_multiple_of") {
            let pad = json(value.get_ref())
                .as_u64()
                .filter(|p| (1..=1 << 20).contains(p));
            match pad {
                Some(pad) => out.pad_to_multiple_of = Some(pad as usize),
                None => self.bad(
                    key.span().start,
                    "`pad_to_multiple_of` is not a positive whole number",
                ),
            }
        }
        if let Some(tokens) = self.table(table, "tokens") {
            for (token, rule) in tokens.iter() {
                let DeValue::Table(rule) = rule.get_ref() else {
                    let what = format!(
                        "token `{}` is not a table with `source` and `force`",
                        token.get_ref()
                    );
                    self.bad(token.span().start, what);
                    continue;
                };
                self.token(token, rule, &mut out, recipe);
            }
        }
        recipe.tokenizer = Some(out);
    }

    fn token(&mut self, token: &Key, rule: &DeTable, out: &mut Tokenizer, recipe: &Recipe) {
        let name = token.get_ref();
        self.check_keys(rule, &["source", "force"], &format!(" of token `{name}`"));
        let at = out.tokens.iter().position(|(t, _, _)| *t == name.as_ref());
        let (mut source, mut force) = at.map_or((None, false), |i| {
            (out.tokens[i].1.clone(), out.tokens[i].2)
        });
        if let Some((key, value)) = rule.get_key_value("force") {
            match value.get_ref() {
                DeValue::Boolean(b) => force = *b,
                _ => self.bad(
                    key.span().start,
                    format!("`force` of token `{name}` is not true or false"),
                ),
            }
        }
        if let Some((key, value)) = rule.get_key_value("source") {
            source = match value.get_ref() {
                DeValue::String(model) => self
                    .named(model, key.span().start, recipe)
                    .map(TokenSource::Model),
                DeValue::Table(table) => self.token_source(key, name, table, recipe),
                _ => {
                    let what = format!(
                        "`source` of token `{name}` is neither a model's name nor a table with `kind`"
                    );
                    self.bad(key.span().start, what);
                    None
                }
            };
        }
        match at {
            Some(i) => out.tokens[i] = (name.to_string(), source, force),
            None => out.tokens.push((name.to_string(), source, force)),
        }
    }

    fn token_source(
        &mut self,
        key: &Key,
        token: &str,
        table: &DeTable,
        recipe: &Recipe,
    ) -> Option<TokenSource> {
        let byte = key.span().start;
        self.check_keys(
            table,
            &["kind", "model", "token", "token_id"],
            &format!(" in `source` of token `{token}`"),
        );
        match self.text(table, "kind").as_deref() {
            Some("zero") => Some(TokenSource::Zero),
            Some("model_token") => {
                let Some(model) = self.text(table, "model") else {
                    self.bad(
                        byte,
                        format!("token `{token}`: `model_token` needs a `model`"),
                    );
                    return None;
                };
                let model = self.named(&model, byte_of(table, "model"), recipe)?;
                let value = |key: &str| table.get(key).map(|v| json(v.get_ref()));
                let token = match (value("token"), value("token_id")) {
                    (Some(Value::String(text)), None) => TokenName::Text(text),
                    (None, Some(id)) if id.is_u64() => {
                        TokenName::Id(id.as_u64().unwrap_or(0) as usize)
                    }
                    _ => {
                        self.bad(
                            byte,
                            format!(
                                "token `{token}`: `model_token` needs one of `token` and `token_id`"
                            ),
                        );
                        return None;
                    }
                };
                Some(TokenSource::ModelToken { model, token })
            }
            other => {
                let what = other.map_or("needs a `kind`".to_owned(), |o| {
                    format!("has the unknown kind `{o}`")
                });
                self.bad(
                    byte,
                    format!("`source` of token `{token}` {what}; expected zero or model_token"),
                );
                None
            }
        }
    }
}
