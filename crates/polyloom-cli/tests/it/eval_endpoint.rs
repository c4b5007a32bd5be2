//! `polyloom eval --endpoint` against a server in miniature.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::openai_server::{Server, chat, prompt};
use super::{polyloom, text};

const PROMPT: &str = "[[prompts]]\ntemplate = \"{{input}}\\nMood:\"\nchoices = [\"bad\", \"good\"]\ntarget = \"{{target}}\"";

/// Twelve reviews of two classes; every third is `fine`, which is good.
fn reviews(dir: &Path, more: &str) -> String {
    let mut rows = "id,text,mood\n".to_owned();
    for i in 0..12 {
        let (word, mood) = if i % 3 == 0 {
            ("fine", "good")
        } else {
            ("awful", "bad")
        };
        writeln!(rows, "r{i},review {i} is {word},{mood}").unwrap();
    }
    std::fs::write(dir.join("reviews.csv"), rows).unwrap();
    let spec = format!(
        r#"
schema = "polyloom.task/1"
id = "mine/mood"
type = "classification"
[source]
kind = "csv"
root = "."
[splits]
test = {{ file = "reviews.csv" }}
[fields]
id = "id"
input = "text"
target = "mood"
[labels]
names = ["bad", "good"]
{more}
[[metrics]]
name = "accuracy"
primary = true
"#
    );
    let path = dir.join("mood.task.toml");
    std::fs::write(&path, spec).unwrap();
    path.display().to_string()
}

/// Says what the words of a review mean, and is wrong about review 5.
fn mood(asked: &str) -> &'static str {
    let last = asked.split("review").last().unwrap();
    match (last.contains("fine"), last.contains(" 5 ")) {
        (true, _) | (_, true) => "The mood is **good**.",
        _ => "bad",
    }
}

fn results(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn ask(url: &str, spec: &str, target: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let target = target.display().to_string();
    let args = [
        "eval",
        "--endpoint",
        url,
        "--model",
        "org/m",
        "-t",
        spec,
        "-o",
        &target,
    ];
    let out = polyloom(&[&args[..], more].concat());
    (out.status.code(), text(&out.stdout), text(&out.stderr))
}

#[test]
fn a_server_is_asked_and_scored_and_its_answers_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let spec = reviews(dir.path(), PROMPT);
    let server = Server::start(|_, _, body| chat(mood(&prompt(body))));
    let target = dir.path().join("r.json");
    let (code, shown, said) = ask(&server.url, &spec, &target, &[]);
    assert_eq!(code, Some(0), "{said}");
    let shown = shown.replace(&dir.path().display().to_string(), "DIR");
    assert_eq!(
        shown,
        "task       metric     value  95 % interval      n\nmine/mood  accuracy   0.917  0.646 .. 0.985    12\nresults: DIR/r.json\n"
    );
    let seen = server.seen();
    assert_eq!(seen.len(), 12);
    let (path, body) = &seen[0];
    assert_eq!(path, "/v1/chat/completions");
    assert_eq!(
        (&body["model"], &body["temperature"], &body["seed"]),
        (&json!("org/m"), &json!(0.0), &json!(0))
    );
    let zero = seen
        .iter()
        .map(|(_, b)| prompt(b))
        .find(|p| p.starts_with("review 0 "))
        .unwrap();
    assert_eq!(
        zero,
        "review 0 is fine\nMood:\n\nAnswer with one of these and nothing else: bad, good"
    );
    assert_eq!(results(&target)["model"]["name"], "m");

    // All answers are there: nobody is asked again. Without the last ones, only these are asked, also after a cut line.
    let (code, _, said) = ask(&server.url, &spec, &target, &[]);
    assert!(
        code == Some(0) && said.contains("nothing changed"),
        "{said}"
    );
    assert_eq!(server.seen().len(), 12);
    let kept = dir.path().join("r.responses.jsonl");
    let lines = std::fs::read_to_string(&kept).unwrap();
    let some: Vec<&str> = lines.lines().take(9).collect();
    std::fs::write(&kept, format!("{}\n{{\"key\": \"ab", some.join("\n"))).unwrap();
    std::fs::remove_file(&target).unwrap();
    let (code, _, said) = ask(&server.url, &spec, &target, &[]);
    assert!(
        code == Some(0) && said.contains("9 of 12 answers are there already"),
        "{said}"
    );
    assert_eq!(server.seen().len(), 15);
    assert_eq!(results(&target)["tasks"]["mine/mood"]["n"], 12);
    ask(&server.url, &spec, &target, &["--force"]);
    assert_eq!(server.seen().len(), 15);
    // Fewer rows are among those that were asked.
    let (code, _, _) = ask(&server.url, &spec, &target, &["-L", "4"]);
    assert_eq!((code, server.seen().len()), (Some(0), 15));
    assert_eq!(results(&target)["tasks"]["mine/mood"]["n"], 4);
}

#[test]
fn texts_to_go_on_with_examples_and_rules() {
    let dir = tempfile::tempdir().unwrap();
    let spec = reviews(dir.path(), PROMPT);
    let server = Server::start(|_, _, body| {
        let said = if mood(&prompt(body)) == "bad" {
            " bad\n"
        } else {
            " good\n"
        };
        (200, json!({"choices": [{"text": said}]}).to_string())
    });
    let target = dir.path().join("r.json");
    let (code, _, said) = ask(
        &server.url,
        &spec,
        &target,
        &[
            "--api",
            "completions",
            "--fewshot",
            "2",
            "--max-tokens",
            "5",
        ],
    );
    assert_eq!(code, Some(0), "{said}");
    let seen = server.seen();
    assert_eq!(seen[0].0, "/v1/completions");
    assert_eq!(
        (&seen[0].1["max_tokens"], &seen[0].1["stop"]),
        (&json!(5), &json!(["\n"]))
    );
    let last = seen
        .iter()
        .map(|(_, b)| prompt(b))
        .find(|p| p.contains("review 11 "))
        .unwrap();
    assert_eq!(
        last,
        "review 0 is fine\nMood: good\n\nreview 1 is awful\nMood: bad\n\nreview 11 is awful\nMood:"
    );
    assert_eq!(
        results(&target)["tasks"]["mine/mood"]["value"]
            .as_f64()
            .unwrap(),
        11.0 / 12.0
    );
    // The task's own rules read the answer.
    let rules =
        format!("{PROMPT}\n[[parse]]\nname = \"mood\"\nsteps = [{{ regex = \"mood=(\\\\w+)\" }}]");
    let spec = reviews(dir.path(), &rules);
    let server = Server::start(|_, _, body| {
        let word = if mood(&prompt(body)) == "bad" {
            "bad"
        } else {
            "good"
        };
        chat(&format!("not bad, not good: mood={word}"))
    });
    let (code, _, said) = ask(&server.url, &spec, &dir.path().join("rules.json"), &[]);
    assert_eq!(code, Some(0), "{said}");
    let found = results(&dir.path().join("rules.json"));
    assert_eq!(
        found["tasks"]["mine/mood"]["value"].as_f64().unwrap(),
        11.0 / 12.0
    );
}

#[test]
fn a_busy_server_is_asked_again_and_a_refusal_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let spec = reviews(dir.path(), PROMPT);
    let target = dir.path().join("r.json");
    let busy = Server::start(|number, _, body| match number {
        1 | 3 => (503, "{}".into()),
        _ => chat(mood(&prompt(body))),
    });
    let (code, _, said) = ask(&busy.url, &spec, &target, &["--concurrency", "2"]);
    assert_eq!((code, busy.seen().len()), (Some(0), 14), "{said}");
    let refused = |url: &str, more: &[&str]| {
        let (code, _, said) = ask(url, &spec, &dir.path().join("never.json"), more);
        assert_eq!(code, Some(2), "{said}");
        said
    };
    // The key is sent, and its variable named where it does not help.
    let closed = Server::start(|_, path, _| match path {
        "/v1/chat/completions Bearer good" => chat("bad"),
        _ => (
            401,
            json!({"error": {"message": "Incorrect API key"}}).to_string(),
        ),
    });
    let said = refused(&closed.url, &["--api-key-env", "NO_SUCH_KEY"]);
    assert!(
        said.contains(&closed.url) && said.contains("401") && said.contains("Incorrect API key"),
        "{said}"
    );
    assert!(
        said.contains("NO_SUCH_KEY is not set; --api-key-env NAME"),
        "{said}"
    );
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_polyloom"))
        .args([
            "eval",
            "--endpoint",
            &closed.url,
            "--model",
            "m",
            "-t",
            &spec,
            "-o",
        ])
        .arg(dir.path().join("keyed.json"))
        .args(["--api-key-env", "SOME_KEY"])
        .env("SOME_KEY", "good")
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", text(&out.stderr));
    let odd = Server::start(|_, _, _| (200, "<html>It works!</html>".into()));
    let said = refused(&odd.url, &[]);
    assert!(
        said.contains("answers no completion: <html>It works!") && said.contains("--endpoint"),
        "{said}"
    );
    let unknown = Server::start(|_, _, _| (404, json!({"message": "no such model"}).to_string()));
    let said = refused(&unknown.url, &[]);
    assert!(
        said.contains("no such model") && said.contains("know the model `org/m`"),
        "{said}"
    );
    let said = refused("http://127.0.0.1:9/v1", &[]);
    assert!(
        said.contains("http://127.0.0.1:9/v1/chat/completions: refuses the connection"),
        "{said}"
    );
    assert!(said.contains("start the server"), "{said}");
    let said = refused("localhost:8000", &[]);
    assert!(said.contains("is no http:// or https:// address"), "{said}");
    #[cfg(not(feature = "hub"))]
    {
        let said = refused("https://localhost:8000", &[]);
        assert!(said.contains("--features hub"), "{said}");
    }
    let said = refused(&closed.url, &["-L", "0"]);
    assert!(said.contains("from 1 on"), "{said}");
}

#[test]
fn a_slow_server_is_told_with_the_time_it_had() {
    let dir = tempfile::tempdir().unwrap();
    let spec = reviews(dir.path(), PROMPT);
    let slow = Server::start(|number, _, _| {
        std::thread::sleep(std::time::Duration::from_millis(if number > 2 {
            1500
        } else {
            0
        }));
        chat("bad")
    });
    let target = dir.path().join("r.json");
    let (code, _, said) = ask(
        &slow.url,
        &spec,
        &target,
        &["--timeout", "1", "--concurrency", "1"],
    );
    assert_eq!(code, Some(2));
    assert!(
        said.contains("does not answer within 1 s") && said.contains("--timeout SECONDS"),
        "{said}"
    );
    // What was answered before is kept.
    let kept = std::fs::read_to_string(dir.path().join("r.responses.jsonl")).unwrap();
    assert_eq!(kept.lines().count(), 2);
}
