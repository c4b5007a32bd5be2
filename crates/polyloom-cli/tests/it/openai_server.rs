//! A server of OpenAI's kind in miniature: what it answers is a function of the prompt.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// What it says: status and body.
pub type Said = (u16, String);

/// The running server.
pub struct Server {
    /// `--endpoint`.
    pub url: String,
    seen: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Server {
    /// Answers requests by `say`, which is told their number, until the process ends.
    pub fn start(say: impl Fn(usize, &str, &Value) -> Said + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (all, say) = (seen.clone(), Arc::new(say));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (all, say) = (all.clone(), say.clone());
                std::thread::spawn(move || {
                    let _ = answer(stream.unwrap(), &all, &*say);
                });
            }
        });
        Self { url, seen }
    }

    /// Path (and key) and body of all requests so far.
    pub fn seen(&self) -> Vec<(String, Value)> {
        self.seen.lock().unwrap().clone()
    }
}

/// A reply of the chat interface.
pub fn chat(text: &str) -> Said {
    let body =
        json!({"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]});
    (200, body.to_string())
}

/// What a request asks.
pub fn prompt(body: &Value) -> String {
    let chat = body["messages"][0]["content"].as_str();
    chat.or(body["prompt"].as_str())
        .unwrap_or_default()
        .to_owned()
}

fn answer(
    stream: TcpStream,
    seen: &Mutex<Vec<(String, Value)>>,
    say: &dyn Fn(usize, &str, &Value) -> Said,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let (mut length, mut key) = (0, String::new());
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(": ") else {
            break;
        };
        match &*name.to_ascii_lowercase() {
            "content-length" => length = value.parse().unwrap(),
            "authorization" => key = format!(" {value}"),
            _ => {}
        }
    }
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes)?;
    let body: Value = serde_json::from_slice(&bytes).unwrap();
    let path = line
        .split_whitespace()
        .nth(1)
        .unwrap_or_default()
        .to_owned()
        + &key;
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.push((path.clone(), body.clone()));
        seen.len()
    };
    let (status, said) = say(number, &path, &body);
    let mut out = reader.into_inner();
    write!(
        out,
        "HTTP/1.1 {status} Said\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{said}",
        said.len()
    )?;
    out.flush()
}
