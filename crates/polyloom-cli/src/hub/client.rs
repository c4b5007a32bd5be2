//! Requests: redirects, the token's limits, and what a refusal means.

use std::io::Read;
use std::time::Duration;

use polyloom::plan::reference::Repository;
use polyloom::{MergeError, Result};
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body};

use super::settings::Settings;

/// Redirects that are followed.
const HOPS: usize = 10;
/// Largest answer that is read into memory.
const LIMIT: u64 = 64 << 20;

/// Why there is no usable answer.
#[derive(Debug)]
pub enum Trouble {
    /// The connection failed or the server is busy: worth another try.
    Passing(String),
    /// The server's last word.
    Final(Box<MergeError>),
}

/// A blocking client of one endpoint.
pub struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// The headers only.
    Head,
    /// The content from this byte on.
    From(u64),
}

impl Client {
    /// From the environment's settings.
    pub fn new(settings: &Settings) -> Self {
        let config = Agent::config_builder()
            // Redirects are followed here, because the token must not follow them.
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("polyloom/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(Duration::from_secs(15)))
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .build();
        Self {
            agent: config.into(),
            endpoint: settings.endpoint.clone(),
            token: settings.token.clone(),
        }
    }

    /// The address of the repository's page.
    pub fn page(&self, repository: &Repository) -> String {
        format!("{}/{}", self.endpoint, repository.id)
    }

    /// The address of a revision's description.
    pub fn description(&self, repository: &Repository) -> String {
        format!(
            "{}/api/models/{}/revision/{}?blobs=true",
            self.endpoint,
            repository.id,
            quoted(&repository.revision, false)
        )
    }

    /// The address of a file.
    pub fn file(&self, repository: &Repository, commit: &str, name: &str) -> String {
        format!(
            "{}/{}/resolve/{commit}/{}",
            self.endpoint,
            repository.id,
            quoted(name, true)
        )
    }

    /// Asks, follows redirects. The token goes to the endpoint's own scheme, host and port only.
    ///
    /// # Errors
    /// No answer, or a redirect that cannot be followed.
    pub fn ask(&self, url: &str, ask: Ask) -> Result<Response<Body>, String> {
        let mut url = url.to_owned();
        for _ in 0..HOPS {
            let mut request = match ask {
                Ask::Head => self.agent.head(&url),
                Ask::From(_) => self.agent.get(&url),
            }
            // Ranges and sizes are those of the file itself.
            .header("accept-encoding", "identity");
            if let Ask::From(start) = ask
                && start > 0
            {
                request = request.header("range", format!("bytes={start}-"));
            }
            if let Some(token) = &self.token
                && origin(&url) == origin(&self.endpoint)
            {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let response = request.call().map_err(|e| shown(&e))?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let next = header(&response, "location")
                .and_then(|to| joined(&url, to))
                .ok_or_else(|| format!("{} redirects to nowhere", bare(&url)))?;
            if url.starts_with("https://") && !next.starts_with("https://") {
                return Err(format!(
                    "{} redirects to an unencrypted address",
                    bare(&url)
                ));
            }
            // What a large file is stands on the first answer; its store need not repeat it.
            if ask == Ask::Head && header(&response, "x-linked-etag").is_some() {
                return Ok(response);
            }
            url = next;
        }
        Err(format!("{} redirects more than {HOPS} times", bare(&url)))
    }

    /// Asks again after failures that pass; refusals end at once.
    ///
    /// # Errors
    /// The server refuses, or does not answer in five tries.
    pub fn ask_patiently(&self, url: &str, ask: Ask, about: &About<'_>) -> Result<Response<Body>> {
        let mut tries = 0;
        loop {
            let trouble = match self.ask(url, ask) {
                Ok(response) => match self.judge(response, about) {
                    Ok(response) => return Ok(response),
                    Err(trouble) => trouble,
                },
                Err(problem) => Trouble::Passing(problem),
            };
            match trouble {
                Trouble::Final(error) => return Err(*error),
                Trouble::Passing(problem) => {
                    tries += 1;
                    if tries == 5 {
                        return Err(self.unreachable(about, &problem));
                    }
                    pause(tries);
                }
            }
        }
    }

    /// A whole answer as text.
    ///
    /// # Errors
    /// As [`Self::ask_patiently`]; an answer that breaks off.
    pub fn text(&self, url: &str, about: &About<'_>) -> Result<Vec<u8>> {
        let response = self.ask_patiently(url, Ask::From(0), about)?;
        let mut bytes = Vec::new();
        response
            .into_body()
            .into_reader()
            .take(LIMIT + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| self.unreachable(about, &e.to_string()))?;
        if bytes.len() as u64 > LIMIT {
            return Err(MergeError::plan(
                "download-failed",
                "the hub's answer is larger than 64 MiB",
            )
            .at(about.place()));
        }
        Ok(bytes)
    }

    /// The error of a server that cannot be reached.
    pub fn unreachable(&self, about: &About<'_>, problem: &str) -> MergeError {
        MergeError::plan(
            "download-failed",
            format!("cannot be fetched from {}: {problem}", self.endpoint),
        )
        .at(about.place())
        .hint("check the connection (HF_ENDPOINT names the hub, HTTPS_PROXY a proxy); the same command goes on where this one stopped")
    }

    /// Separates good answers from refusals, and those that pass from those that do not.
    ///
    /// # Errors
    /// Anything but a success.
    pub fn judge(
        &self,
        response: Response<Body>,
        about: &About<'_>,
    ) -> Result<Response<Body>, Trouble> {
        let status = response.status();
        // The only redirection that gets here is a `Head` that has been told enough.
        if status.is_success() || status.is_redirection() {
            return Ok(response);
        }
        if status.is_server_error()
            || status == StatusCode::TOO_MANY_REQUESTS
            || status == StatusCode::REQUEST_TIMEOUT
            || status == StatusCode::RANGE_NOT_SATISFIABLE
        {
            return Err(Trouble::Passing(format!("the server answers {status}")));
        }
        let reason = header(&response, "x-error-code").unwrap_or_default();
        let token = if self.token.is_some() {
            "the token that was sent (HF_TOKEN or the saved login) gives no access"
        } else {
            "no token was sent"
        };
        let page = self.page(about.repository);
        let place = about.place();
        let plan = |code, text: String| MergeError::plan(code, text).at(place.clone());
        let error = match (status.as_u16(), reason) {
            (_, "RepoNotFound") => plan(
                "download-not-found",
                format!("there is no model `{}` at {}, or it is private", about.repository.id, self.endpoint),
            )
            .hint(format!("check the name; for a private model set HF_TOKEN ({token})")),
            (_, "RevisionNotFound") => plan(
                "download-not-found",
                format!("model `{}` has no revision `{}`", about.repository.id, about.repository.revision),
            )
            .hint(format!("branches and tags: {page}/tree/main")),
            (401 | 403, "GatedRepo") => plan(
                "download-refused",
                format!("model `{}` is gated (the hub answers {status}); {token}", about.repository.id),
            )
            .hint(format!("accept its terms at {page} and set HF_TOKEN to a token of that account")),
            (401 | 403, _) => plan(
                "download-refused",
                format!("the hub refuses `{}` ({status}); {token}", about.repository.id),
            )
            .hint(format!("check the name; for a private or gated model set HF_TOKEN to a token that may read {page}")),
            (404, _) => plan(
                "download-not-found",
                format!("is not at {} ({status})", self.endpoint),
            )
            .hint(format!("check the name and the revision: {page}")),
            _ => plan("download-failed", format!("{} answers {status}", self.endpoint)),
        };
        Err(Trouble::Final(Box::new(error)))
    }
}

/// What a request is for, in messages.
pub struct About<'a> {
    /// The model.
    pub repository: &'a Repository,
    /// The file; empty for the model as a whole.
    pub file: &'a str,
}

impl About<'_> {
    /// `hf:org/name@rev` or `hf:org/name@rev/file`.
    pub fn place(&self) -> String {
        if self.file.is_empty() {
            self.repository.to_string()
        } else {
            format!("{}: {}", self.repository, self.file)
        }
    }
}

/// Waits before try number `tries` + 1: 0.25, 0.5, 1, 2 seconds.
pub fn pause(tries: u32) {
    std::thread::sleep(Duration::from_millis(125 << tries.min(4)));
}

/// A header as text.
pub fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// Scheme, host and port: all before the path. Compared as text, so anything odd counts as another place.
fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..]
        .find(['/', '?', '#'])
        .map_or(url.len(), |at| start + at);
    &url[..end]
}

/// An address without its query, which may hold a signature.
fn bare(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

/// Where a `Location` header leads.
fn joined(from: &str, to: &str) -> Option<String> {
    let scheme = from.split_once("://")?.0;
    if to.starts_with("https://") || to.starts_with("http://") {
        Some(to.to_owned())
    } else if to.starts_with("//") {
        Some(format!("{scheme}:{to}"))
    } else if to.starts_with('/') {
        Some(format!("{}{to}", origin(from)))
    } else if to.is_empty() || to.contains("://") {
        None
    } else {
        Some(format!("{}/{to}", bare(from).rsplit_once('/')?.0))
    }
}

/// Percent-encodes a path segment, or several (`slashes` stay).
fn quoted(text: &str, slashes: bool) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_' | b'.' | b'~')
            || (slashes && byte == b'/')
        {
            out.push(byte as char);
        } else {
            out += &format!("%{byte:02X}");
        }
    }
    out
}

/// A transport error in words, without the address (it may hold a signature).
fn shown(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(e) => e.to_string(),
        ureq::Error::HostNotFound => "the host is not known".into(),
        ureq::Error::Timeout(_) => "the server does not answer in time".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_endpoint_itself_is_the_endpoint() {
        let home = origin("https://hub.example");
        assert_eq!(origin("https://hub.example/a/b?c"), home);
        for other in [
            "https://hub.example@evil.example/x",
            "https://hub.example.evil.example/",
            "http://hub.example/x",
            "https://hub.example:8443/x",
            "https://hub.example\\@evil.example/",
        ] {
            assert_ne!(origin(other), home, "{other}");
        }
    }

    #[test]
    fn redirects_are_joined_as_browsers_do() {
        let from = "https://hub.example/a/b?q";
        assert_eq!(joined(from, "/c").unwrap(), "https://hub.example/c");
        assert_eq!(joined(from, "c").unwrap(), "https://hub.example/a/c");
        assert_eq!(
            joined(from, "//x.example/c").unwrap(),
            "https://x.example/c"
        );
        assert_eq!(joined(from, "http://x/c").unwrap(), "http://x/c");
        assert_eq!(joined(from, "file:///etc/passwd"), None);
        assert_eq!(joined(from, ""), None);
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(quoted("refs/pr/1", false), "refs%2Fpr%2F1");
        assert_eq!(quoted("a b/c#.json", true), "a%20b/c%23.json");
    }
}
