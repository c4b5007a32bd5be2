//! Which modules an adapter configuration means: PEFT's rules on names, as pure functions.
//!
//! Python's `re.fullmatch` and `re.match` are reproduced with the `regex` crate, which has no look-around and no
//! backreferences; a pattern that needs them is refused with [`PatternError`].

use regex::Regex;

/// A pattern that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternError {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub problem: String,
}

impl std::fmt::Display for PatternError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "pattern `{}` cannot be used: {}",
            self.pattern, self.problem
        )
    }
}

impl std::error::Error for PatternError {}

/// Compiles `before + (pattern) + after`, anchored at both ends.
fn compile(before: &str, pattern: &str, after: &str) -> Result<Regex, PatternError> {
    Regex::new(&format!(r"\A(?:{before}(?:{pattern}){after})\z")).map_err(|e| {
        let looks = ["(?=", "(?!", "(?<=", "(?<!"]
            .iter()
            .any(|s| pattern.contains(s));
        let back = pattern
            .as_bytes()
            .windows(2)
            .any(|w| w[0] == b'\\' && w[1].is_ascii_digit() && w[1] != b'0');
        PatternError {
            pattern: pattern.to_owned(),
            problem: if looks {
                "look-around is not supported".into()
            } else if back {
                "backreferences are not supported".into()
            } else {
                e.to_string()
                    .lines()
                    .last()
                    .unwrap_or("not a regular expression")
                    .to_owned()
            },
        }
    })
}

/// A list of names, or one regular expression over whole module names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// Entries; a module matches if its name is an entry or ends with `.entry`.
    List(Vec<String>),
    /// A regular expression that must match the whole name (`re.fullmatch`).
    Pattern(String),
}

impl Names {
    /// True if `module` is meant.
    pub fn matches(&self, module: &str) -> Result<bool, PatternError> {
        match self {
            Self::List(entries) => Ok(entries.iter().any(|e| ends_with_entry(module, e))),
            Self::Pattern(pattern) => Ok(compile("", pattern, "")?.is_match(module)),
        }
    }

    /// The JSON of `adapter_config.json`.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::List(entries) => serde_json::json!(entries),
            Self::Pattern(pattern) => serde_json::json!(pattern),
        }
    }
}

fn ends_with_entry(module: &str, entry: &str) -> bool {
    module == entry
        || module
            .strip_suffix(entry)
            .is_some_and(|rest| rest.ends_with('.'))
}

/// The keys of a configuration that choose modules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets {
    /// `target_modules`; `None` means no module.
    pub target: Option<Names>,
    /// `exclude_modules`, asked first.
    pub exclude: Option<Names>,
    /// `layers_to_transform`; ignored with a regular expression as target, as PEFT does.
    pub layers: Option<Vec<i64>>,
    /// `layers_pattern`: names of the layer container.
    pub layers_pattern: Vec<String>,
    /// `modules_to_save`: never adapted.
    pub save: Vec<String>,
}

impl Targets {
    /// True if PEFT would adapt `module` (full name inside the base model).
    pub fn matches(&self, module: &str) -> Result<bool, PatternError> {
        if let Some(exclude) = &self.exclude
            && exclude.matches(module)?
        {
            return Ok(false);
        }
        for save in &self.save {
            if is_saved_module(module, save) {
                return Ok(false);
            }
        }
        let Some(target) = &self.target else {
            return Ok(false);
        };
        if !target.matches(module)? {
            return Ok(false);
        }
        match (&self.layers, target) {
            (Some(layers), Names::List(entries)) => {
                // PEFT skips the layer check for a name that is an entry letter by letter.
                if entries.iter().any(|e| e == module) {
                    return Ok(true);
                }
                Ok(layer_index(module, &self.layers_pattern)?.is_some_and(|i| layers.contains(&i)))
            }
            _ => Ok(true),
        }
    }
}

/// True if `module` is, lies in or contains in its path the module `saved` of `modules_to_save`:
/// `(^|.*\.)saved($|\..*)`. The entry is taken letter by letter.
pub fn is_saved_module(module: &str, saved: &str) -> bool {
    let mut at = 0;
    while let Some(found) = module[at..].find(saved) {
        let start = at + found;
        let end = start + saved.len();
        let left = start == 0 || module.as_bytes()[start - 1] == b'.';
        let right = end == module.len() || module.as_bytes()[end] == b'.';
        if left && right && !saved.is_empty() {
            return true;
        }
        at = start + module[start..].chars().next().map_or(1, char::len_utf8);
        if at >= module.len() {
            break;
        }
    }
    false
}

/// The index of the layer a module lies in, as PEFT finds it; `None` without one.
///
/// Without patterns a segment must stand before the container, so `layers.0.q_proj` has no index but
/// `model.layers.0.q_proj` has.
pub fn layer_index(module: &str, patterns: &[String]) -> Result<Option<i64>, PatternError> {
    let found = |regex: &Regex| {
        regex
            .captures(module)
            .and_then(|c| c.name("layer"))
            .and_then(|m| m.as_str().parse().ok())
    };
    if patterns.is_empty() {
        let regex = compile(r".*?\.[^.]*\.(?P<layer>\d+)\..*", "", "")?;
        return Ok(found(&regex));
    }
    for pattern in patterns {
        let regex = compile(r"(?:|.*?\.)", pattern, r"\.(?P<layer>\d+)\..*")?;
        if let Some(layer) = found(&regex) {
            return Ok(Some(layer));
        }
    }
    Ok(None)
}

/// The first key of `rank_pattern` or `alpha_pattern`, in file order, that means `module`: `(.*\.)?(key)$` from the
/// start of the name.
pub fn pattern_key<'a>(
    keys: impl IntoIterator<Item = &'a str>,
    module: &str,
) -> Result<Option<&'a str>, PatternError> {
    for key in keys {
        if compile(r"(?:.*\.)?", key, "")?.is_match(module) {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Option<Names> {
        Some(Names::List(names.iter().map(|&n| n.to_owned()).collect()))
    }

    #[test]
    fn a_list_entry_is_a_whole_tail_of_the_name() {
        let targets = Targets {
            target: list(&["proj", "attn.q"]),
            ..Targets::default()
        };
        assert!(targets.matches("layers.0.proj").unwrap());
        assert!(!targets.matches("layers.0.q_proj").unwrap());
        assert!(!targets.matches("layers.0.self_attn.q").unwrap());
        assert!(targets.matches("layers.0.attn.q").unwrap());
    }

    #[test]
    fn saved_modules_match_by_whole_segments() {
        assert!(is_saved_module("score", "score"));
        assert!(is_saved_module("model.score.dense", "score"));
        assert!(!is_saved_module("model.scores", "score"));
        assert!(!is_saved_module("underscore", "score"));
        assert!(is_saved_module("underscore.score", "score"));
    }

    #[test]
    fn look_around_is_refused_with_its_name() {
        let error = pattern_key(["(?!x)y"], "y").unwrap_err();
        assert_eq!(error.problem, "look-around is not supported");
    }

    #[test]
    fn the_first_pattern_wins_and_dots_are_wild() {
        let keys = ["a.b", "b", "a.*"];
        assert_eq!(pattern_key(keys, "x.a.b").unwrap(), Some("a.b"));
        assert_eq!(pattern_key(keys, "x.axb").unwrap(), Some("a.b"));
        assert_eq!(pattern_key(keys, "x.c.b").unwrap(), Some("b"));
        assert_eq!(pattern_key(keys, "x.c.d").unwrap(), None);
    }
}
