//! A client of servers that speak OpenAI's HTTP interface. Beside [`crate::hub`] the only part of Polyloom that opens a
//! socket, and only when an address is given.

use std::io::Read;
use std::time::Duration;

use polyloom::evaluate::board::score::ask::Style;
use polyloom::{MergeError, Result};
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::StatusCode;

/// Largest answer that is read.
const LIMIT: u64 = 16 << 20;
/// Tries of a request.
const TRIES: u32 = 5;

/// A server and what it is asked for.
pub struct Endpoint {
    agent: Agent,
    /// Address of the interface, without a slash at its end.
    url: String,
    /// Name of the model.
    model: String,
    /// How prompts are sent.
    style: Style,
    /// Variable of the key, and the key.
    key: (String, Option<String>),
    timeout: Duration,
}

/// Why there is no answer.
enum Trouble {
    /// Busy, broken off, too slow: worth another try, after these seconds if the server says so.
    Passing(Box<MergeError>, Option<u64>),
    /// The server's last word.
    Final(Box<MergeError>),
}

impl Endpoint {
    /// A server at an address such as `http://localhost:8000/v1`.
    ///
    /// # Errors
    /// An address that is none, `https` in a program without TLS, a key that cannot stand in a header.
    pub fn new(
        url: &str,
        model: &str,
        style: Style,
        key_variable: &str,
        timeout: u64,
    ) -> Result<Self> {
        let url = url.trim().trim_end_matches('/');
        // What people copy from examples of requests.
        let url = ["/chat/completions", "/completions"]
            .iter()
            .fold(url, |url, end| url.strip_suffix(end).unwrap_or(url));
        let bad = |what: &str| MergeError::plan("bad-endpoint", what).at(url.to_owned());
        if !(url.starts_with("http://") || url.starts_with("https://"))
            || url.contains(char::is_whitespace)
        {
            return Err(bad("is no http:// or https:// address")
                .hint("--endpoint http://localhost:8000/v1"));
        }
        if url.starts_with("https://") && !cfg!(feature = "hub") {
            return Err(bad("needs encryption, and this program was built without it")
                .hint("build it with `cargo install --path crates/polyloom-cli --features hub`, or use an http:// address"));
        }
        let key = std::env::var(key_variable).ok();
        let key = key.map(|k| k.trim().to_owned()).filter(|k| !k.is_empty());
        if key
            .as_ref()
            .is_some_and(|k| !k.chars().all(|c| c.is_ascii_graphic()))
        {
            return Err(MergeError::plan(
                "arguments",
                format!("{key_variable} holds a character that no key has"),
            ));
        }
        let timeout = Duration::from_secs(timeout);
        let config = Agent::config_builder()
            // The key must not follow a redirect.
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("polyloom/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_global(Some(timeout))
            .build();
        Ok(Self {
            agent: config.into(),
            url: url.to_owned(),
            model: model.to_owned(),
            style,
            key: (key_variable.to_owned(), key),
            timeout,
        })
    }

    /// The address of requests.
    pub fn address(&self) -> String {
        match self.style {
            Style::Chat => format!("{}/chat/completions", self.url),
            Style::Completion => format!("{}/completions", self.url),
        }
    }

    /// The request for a prompt.
    pub fn request(
        &self,
        prompt: &str,
        max_tokens: u32,
        temperature: f64,
        seed: u64,
        stop: &[String],
    ) -> Value {
        let mut body = json!({"model": self.model});
        match self.style {
            Style::Chat => body["messages"] = json!([{"role": "user", "content": prompt}]),
            Style::Completion => body["prompt"] = prompt.into(),
        }
        body["temperature"] = json!(temperature);
        body["seed"] = json!(seed);
        body["max_tokens"] = json!(max_tokens);
        if !stop.is_empty() {
            // The interface takes four.
            body["stop"] = json!(&stop[..stop.len().min(4)]);
        }
        body
    }

    /// The text that the server answers; asked again after failures that pass, unless `stopped`.
    ///
    /// # Errors
    /// The server refuses, does not answer, or answers something else.
    pub fn ask(&self, body: &Value, stopped: &dyn Fn() -> bool) -> Result<String> {
        let mut tries = 0;
        loop {
            match self.once(body) {
                Ok(text) => return Ok(text),
                Err(Trouble::Final(error)) => return Err(*error),
                Err(Trouble::Passing(error, after)) => {
                    tries += 1;
                    if tries == TRIES || stopped() {
                        return Err(*error);
                    }
                    let wait = Duration::from_millis(250 << tries);
                    let asked = after.map(|s| Duration::from_secs(s.min(60)));
                    std::thread::sleep(asked.unwrap_or(wait));
                }
            }
        }
    }

    fn once(&self, body: &Value) -> Result<String, Trouble> {
        let address = self.address();
        let error = |code, what: String| MergeError::plan(code, what).at(address.clone());
        let mut request = self
            .agent
            .post(&address)
            .header("content-type", "application/json");
        if let Some(key) = &self.key.1 {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let slow =
            || {
                let what = format!("does not answer within {} s", self.timeout.as_secs());
                let slow = error("endpoint-timeout", what);
                Trouble::Passing(
                    Box::new(slow.hint(
                        "--timeout SECONDS waits longer, --concurrency 1 asks for less at once",
                    )),
                    None,
                )
            };
        let response = request.send(body.to_string()).map_err(|e| match e {
            ureq::Error::Timeout(_) => slow(),
            ureq::Error::HostNotFound => Trouble::Final(Box::new(
                error("endpoint-unreachable", "the host is not known".into())
                    .hint("check --endpoint"),
            )),
            ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
                let refused = error("endpoint-unreachable", "refuses the connection".into());
                Trouble::Final(Box::new(
                    refused.hint("start the server, or check host and port of --endpoint"),
                ))
            }
            other => Trouble::Passing(
                Box::new(error(
                    "endpoint-failed",
                    format!("cannot be asked: {other}"),
                )),
                None,
            ),
        })?;
        let status = response.status();
        let after = response.headers().get("retry-after");
        let after = after.and_then(|v| v.to_str().ok()?.trim().parse().ok());
        let mut bytes = Vec::new();
        let mut reader = response.into_body().into_reader().take(LIMIT);
        reader.read_to_end(&mut bytes).map_err(|e| match e.kind() {
            std::io::ErrorKind::TimedOut => slow(),
            _ => {
                let what = format!("breaks off its answer: {e}");
                Trouble::Passing(Box::new(error("endpoint-failed", what)), None)
            }
        })?;
        let said = String::from_utf8_lossy(&bytes);
        if status.is_success() {
            return self.content(&said).ok_or_else(|| {
                let what = format!("answers no completion: {}", excerpt(&said));
                Trouble::Final(Box::new(error("endpoint-answer", what).hint(
                    "--endpoint takes the address before /chat/completions, --api completions the other interface",
                )))
            });
        }
        let told = error(
            "endpoint-refused",
            format!("answers {status}: {}", excerpt(&reason(&said))),
        );
        if status.is_server_error()
            || status == StatusCode::TOO_MANY_REQUESTS
            || status == StatusCode::REQUEST_TIMEOUT
        {
            let told = told.hint("--concurrency 1 asks for less at once; the same command goes on where this one stopped");
            return Err(Trouble::Passing(Box::new(told), after));
        }
        let (variable, key) = &self.key;
        let told = match status.as_u16() {
            401 | 403 => told.hint(match key {
                Some(_) => format!("the key of {variable} gives no access"),
                None => format!("{variable} is not set; --api-key-env NAME names another variable"),
            }),
            404 => told.hint(format!(
                "the address usually ends in /v1; does the server know the model `{}`?",
                self.model
            )),
            _ => told,
        };
        Err(Trouble::Final(Box::new(told)))
    }

    /// The text of an answer; a model that only calls tools or refuses says nothing.
    fn content(&self, said: &str) -> Option<String> {
        let answer: Value = serde_json::from_str(said).ok()?;
        let choice = answer.get("choices")?.get(0)?;
        let text = match self.style {
            Style::Chat => choice.get("message")?.get("content")?,
            Style::Completion => choice.get("text")?,
        };
        match text {
            Value::String(text) => Some(text.clone()),
            Value::Null => Some(String::new()),
            _ => None,
        }
    }
}

/// The message of an error in OpenAI's form, else all of it.
fn reason(said: &str) -> String {
    let value: Value = serde_json::from_str(said).unwrap_or_default();
    let message = value["error"]["message"]
        .as_str()
        .or(value["message"].as_str());
    message.map_or_else(|| said.to_owned(), str::to_owned)
}

/// The beginning of a text, on one line.
fn excerpt(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let short: String = line.chars().take(160).collect();
    match short.len() {
        0 => "(nothing)".into(),
        n if n < line.len() => format!("{short}..."),
        _ => short,
    }
}
