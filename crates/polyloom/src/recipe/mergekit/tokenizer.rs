//! `tokenizer_source` and `tokenizer`.

use serde_json::{Map, Value};

use super::Reader;
use crate::error::Result;
use crate::recipe::{TokenName, TokenSource, Tokenizer, Vocabulary};

impl Reader<'_> {
    pub(super) fn tokenizer(&mut self, top: &Map<String, Value>) {
        let short = top.get("tokenizer_source").filter(|v| !v.is_null());
        let long = top.get("tokenizer").filter(|v| !v.is_null());
        let mut out = Tokenizer {
            source: Vocabulary::Union,
            tokens: Vec::new(),
            pad_to_multiple_of: None,
        };
        match (short, long) {
            (None, None) => return,
            (Some(_), Some(_)) => {
                return self.bad(
                    "tokenizer_source",
                    "`tokenizer_source` and `tokenizer` exclude each other",
                );
            }
            (Some(source), None) => {
                let source = self.vocabulary(source, "tokenizer_source");
                out.source = self.good(source).unwrap_or(Vocabulary::Union);
            }
            (None, Some(Value::Object(table))) => {
                self.inside("tokenizer", |this| this.rules(table, &mut out));
            }
            (None, Some(_)) => return self.bad("tokenizer", "`tokenizer` is not a table"),
        }
        self.recipe.tokenizer = Some(out);
    }

    fn rules(&mut self, table: &Map<String, Value>, out: &mut Tokenizer) {
        const KEYS: &[&str] = &["source", "tokens", "pad_to_multiple_of"];
        for key in table.keys().filter(|k| !KEYS.contains(&k.as_str())) {
            self.unknown(key, "in `tokenizer`", KEYS);
        }
        if let Some(source) = table.get("source").filter(|v| !v.is_null()) {
            let source = self.vocabulary(source, "source");
            out.source = self.good(source).unwrap_or(Vocabulary::Union);
        }
        if let Some(pad) = table.get("pad_to_multiple_of").filter(|v| !v.is_null()) {
            match pad.as_u64().filter(|p| (1..=1 << 20).contains(p)) {
                Some(pad) => out.pad_to_multiple_of = Some(pad as usize),
                None => self.bad(
                    "pad_to_multiple_of",
                    "`pad_to_multiple_of` is not a positive whole number",
                ),
            }
        }
        let tokens = match table.get("tokens") {
            None | Some(Value::Null) => return,
            Some(Value::Object(tokens)) => tokens,
            Some(_) => return self.bad("tokens", "`tokens` is not a table"),
        };
        self.inside("tokens", |this| {
            for (token, rule) in tokens {
                if !rule.is_object() && !rule.is_null() {
                    let what = format!("token `{token}` is not a table with `source` and `force`");
                    this.bad(token, what);
                    continue;
                }
                let source = match rule.get("source").filter(|v| !v.is_null()) {
                    Some(source) => {
                        let source = this.token_source(token, source);
                        this.good(source)
                    }
                    None => None,
                };
                let force = match rule.get("force") {
                    None | Some(Value::Null) => false,
                    Some(Value::Bool(force)) => *force,
                    Some(_) => {
                        this.bad(
                            token,
                            format!("`force` of token `{token}` is not true or false"),
                        );
                        false
                    }
                };
                out.tokens.push((token.clone(), source, force));
            }
        });
    }

    fn vocabulary(&mut self, value: &Value, key: &str) -> Result<Vocabulary> {
        match value.as_str() {
            Some("union") => Ok(Vocabulary::Union),
            Some("base") => Ok(Vocabulary::Base),
            _ => Ok(Vocabulary::Model(self.model(value, key)?)),
        }
    }

    fn token_source(&mut self, token: &str, value: &Value) -> Result<TokenSource> {
        let kind = value.get("kind").and_then(Value::as_str);
        match kind {
            Some("zero") => Ok(TokenSource::Zero),
            Some("model_token") => {
                let model = value.get("model").ok_or_else(|| {
                    self.wrong(
                        token,
                        format!("token `{token}`: `model_token` needs a `model`"),
                    )
                })?;
                let model = self.model(model, token)?;
                let name =
                    match (value.get("token"), value.get("token_id")) {
                        (Some(Value::String(text)), None) => TokenName::Text(text.clone()),
                        (None, Some(id)) if id.is_u64() => {
                            TokenName::Id(id.as_u64().unwrap_or(0) as usize)
                        }
                        _ => return Err(self.wrong(
                            token,
                            format!(
                                "token `{token}`: `model_token` needs one of `token` and `token_id`"
                            ),
                        )),
                    };
                Ok(TokenSource::ModelToken { model, token: name })
            }
            Some(other) => Err(self.wrong(
                token,
                format!("token `{token}`: unknown kind `{other}`; expected zero or model_token"),
            )),
            None => Ok(TokenSource::Model(self.model(value, token)?)),
        }
    }
}
