//! The Hugging Face variables, read as its own tools read them.

use std::path::PathBuf;

use polyloom::{MergeError, Result};

/// What the environment says.
pub struct Settings {
    /// `HF_ENDPOINT` without a slash at the end.
    pub endpoint: String,
    /// `HF_TOKEN`, or the token that a login saved.
    pub token: Option<String>,
    /// `HF_HUB_OFFLINE`, by its name.
    pub offline: Option<&'static str>,
}

impl Settings {
    /// From a lookup of variables.
    ///
    /// # Errors
    /// An endpoint that is no address, a token that cannot stand in a header.
    pub fn read(var: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let var = |name: &str| var(name).filter(|v| !v.trim().is_empty());
        let truthy = |name: &str| {
            var(name).is_some_and(|v| {
                matches!(
                    v.trim().to_ascii_lowercase().as_str(),
                    "1" | "on" | "yes" | "true"
                )
            })
        };
        let endpoint = var("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let endpoint = endpoint.trim().trim_end_matches('/').to_owned();
        if !(endpoint.starts_with("https://") || endpoint.starts_with("http://"))
            || endpoint.contains(char::is_whitespace)
        {
            return Err(MergeError::plan(
                "arguments",
                format!("HF_ENDPOINT is `{endpoint}`, which is no http:// or https:// address"),
            ));
        }
        let offline = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]
            .into_iter()
            .find(|name| truthy(name));
        let token = if truthy("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            None
        } else {
            var("HF_TOKEN")
                .or_else(|| var("HUGGING_FACE_HUB_TOKEN"))
                .or_else(|| std::fs::read_to_string(token_file(&var)?).ok())
        };
        let token = token.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty());
        if token
            .as_ref()
            .is_some_and(|t| !t.chars().all(|c| c.is_ascii_graphic()))
        {
            return Err(MergeError::plan(
                "arguments",
                "the Hugging Face token holds a character that no token has",
            )
            .hint("set HF_TOKEN anew, or log in again"));
        }
        Ok(Self {
            endpoint,
            token,
            offline,
        })
    }
}

fn token_file(var: &impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let path = |name: &str| var(name).map(PathBuf::from);
    path("HF_TOKEN_PATH").or_else(|| {
        let home = path("HF_HOME")
            .or_else(|| path("XDG_CACHE_HOME").map(|h| h.join("huggingface")))
            .or_else(|| path("HOME").map(|h| h.join(".cache").join("huggingface")))?;
        Some(home.join("token"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<Settings> {
        Settings::read(|name| vars.iter().find(|v| v.0 == name).map(|v| v.1.to_owned()))
    }

    #[test]
    fn the_token_comes_from_the_variable_then_from_the_login() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "hf_saved\n").unwrap();
        let home = ("HF_HOME", dir.path().to_str().unwrap());
        assert_eq!(read(&[home]).unwrap().token.unwrap(), "hf_saved");
        assert_eq!(
            read(&[home, ("HF_TOKEN", "hf_x ")]).unwrap().token.unwrap(),
            "hf_x"
        );
        let none = read(&[home, ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).unwrap();
        assert_eq!(none.token, None);
        assert!(read(&[("HF_TOKEN", "a\nb")]).is_err());
    }

    #[test]
    fn the_endpoint_is_an_address() {
        assert_eq!(read(&[]).unwrap().endpoint, "https://huggingface.co");
        let mirror = read(&[("HF_ENDPOINT", "http://127.0.0.1:8080/")]).unwrap();
        assert_eq!(mirror.endpoint, "http://127.0.0.1:8080");
        assert!(read(&[("HF_ENDPOINT", "hub.example")]).is_err());
    }

    #[test]
    fn offline_is_said_in_several_ways() {
        assert_eq!(
            read(&[("HF_HUB_OFFLINE", "Yes")]).unwrap().offline,
            Some("HF_HUB_OFFLINE")
        );
        assert_eq!(read(&[("HF_HUB_OFFLINE", "0")]).unwrap().offline, None);
    }
}
