//! Variables of the environment in the paths of recipes, as a shell writes them.

/// Puts in `${NAME}` and `${NAME:-otherwise}` (also where the variable is empty). `$` without a brace stays.
///
/// # Errors
/// A variable that is not set and has no default, a brace that is not closed, a name that is none.
pub fn expand(text: &str) -> Result<String, String> {
    expand_by(text, |name| std::env::var(name).ok())
}

fn expand_by(text: &str, of: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find("${") {
        out.push_str(&rest[..at]);
        let inner = &rest[at + 2..];
        let end = inner
            .find('}')
            .ok_or_else(|| format!("`{text}`: `${{` without `}}`"))?;
        let (name, otherwise) = match inner[..end].split_once(":-") {
            Some((name, otherwise)) => (name, Some(otherwise)),
            None => (&inner[..end], None),
        };
        let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !first || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(format!("`{text}`: `{name}` is no name of a variable"));
        }
        match (of(name).filter(|v| !v.is_empty()), otherwise) {
            (Some(value), _) => out.push_str(&value),
            (None, Some(otherwise)) => out.push_str(otherwise),
            (None, None) => {
                return Err(format!(
                    "`{text}`: the environment has no `{name}`; set it, or write `${{{name}:-PATH}}`"
                ));
            }
        }
        rest = &inner[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_a_shell_writes_them() {
        let of = |name: &str| match name {
            "A" => Some("/x".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let with = |text: &str| expand_by(text, of);
        assert_eq!(with("${A}/y${A}").unwrap(), "/x/y/x");
        assert_eq!(with("${B:-../shared}/y").unwrap(), "../shared/y");
        assert_eq!(with("${EMPTY:-z}$A").unwrap(), "z$A");
        assert!(with("${B}/y").unwrap_err().contains("${B:-PATH}"));
        assert!(with("${A").unwrap_err().contains("without"));
        assert!(with("${a-b}").unwrap_err().contains("no name"));
    }
}
