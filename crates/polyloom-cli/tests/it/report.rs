//! `polyloom report` as a user meets it: files by ending, refusals, and the page in a browser where there is one.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{polyloom, text};

/// Six systems on eight tasks; the fourth and fifth are alike.
fn table(dir: &Path) -> String {
    let mut out = "system,task,accuracy\n".to_owned();
    for (s, name) in ["base", "a", "b", "c</script>", "d", "e"]
        .iter()
        .enumerate()
    {
        for t in 0..8 {
            let ripple = ((s * 5 + t * 3) % 7) as f64 / 60.0;
            let level = [0.3, 0.5, 0.55, 0.7, 0.7, 0.85][s];
            writeln!(out, "{name},task{t},{:.4}", level + ripple).unwrap();
        }
    }
    let path = dir.join("scores.csv");
    std::fs::write(&path, out).unwrap();
    path.display().to_string()
}

fn file(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}

#[test]
fn every_form_by_its_ending() {
    let dir = tempfile::tempdir().unwrap();
    let scores = table(dir.path());
    let outputs: Vec<String> = ["r.html", "r.md", "r.csv", "r.tex", "r.json"]
        .map(|n| file(dir.path(), n))
        .to_vec();
    let mut args = vec!["report", &scores, "--baseline", "base"];
    for output in &outputs {
        args.extend(["-o", output]);
    }
    let out = polyloom(&args);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(
        text(&out.stdout).contains("`e` stands first"),
        "{}",
        text(&out.stdout)
    );
    let read = |i: usize| std::fs::read_to_string(&outputs[i]).unwrap();
    let html = read(0);
    assert!(html.starts_with("<!DOCTYPE html>") && html.ends_with("</html>\n"));
    assert!(!html.contains("c</script>") && html.contains("c&lt;/script&gt;"));
    assert!(read(1).contains("| 1 | e |"));
    assert!(read(2).starts_with("rank,system,mean,"));
    assert!(read(3).contains("\\toprule"));
    let json: serde_json::Value = serde_json::from_str(&read(4)).unwrap();
    assert_eq!(
        (&json["schema"], &json["baseline"]),
        (&"polyloom.report/1".into(), &"base".into())
    );
    // Existing files stay, unless told otherwise.
    let out = polyloom(&["report", &scores, "-o", &outputs[0]]);
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("--force"));
    let out = polyloom(&["report", &scores, "-o", &outputs[0], "--force", "--json"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let last: serde_json::Value =
        serde_json::from_str(text(&out.stdout).lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["type"], &last["systems"]),
        (&"done".into(), &6.into())
    );
}

#[test]
fn refusals_name_the_fix() {
    let dir = tempfile::tempdir().unwrap();
    let scores = table(dir.path());
    let page = file(dir.path(), "r.html");
    let refused = |args: &[&str], part: &str| {
        let out = polyloom(&[&["report", &scores], args].concat());
        assert_eq!(out.status.code(), Some(2), "{args:?}");
        let message = text(&out.stderr);
        assert!(message.contains(part), "{args:?}: {message}");
    };
    refused(&["-o", "report.pdf"], ".html, .md");
    refused(&["-o", "nowhere/r.html"], "create it first");
    refused(&["-o", &page, "--baseline", "x"], "the systems are `base`");
    refused(
        &["-o", &page, "--rank-by", "normalised"],
        "score of an expert",
    );
    refused(&["-o", &page, "--stages", "a,b"], "2 stages for 8 tasks");
    refused(
        &["-o", &page, "--by", "skill"],
        "no task has the tag `skill`",
    );
    refused(
        &["-o", &page, "--predictions", "nowhere.csv"],
        "nowhere.csv",
    );
    assert!(!Path::new(&page).exists());
}

#[test]
fn predictions_show_what_changes() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = "model,task,id,question,target,prediction,confidence\n".to_owned();
    for (model, every) in [("old", 4), ("new", 9)] {
        for i in 0..90 {
            let right = i % every != 0;
            let said = if right { "yes" } else { "<b>no</b>" };
            let sure = if right { 0.9 } else { 0.6 };
            writeln!(rows, "{model},t,q{i},is {i} < {model}?,yes,{said},{sure}").unwrap();
        }
    }
    let path = file(dir.path(), "p.csv");
    std::fs::write(&path, rows).unwrap();
    let page = file(dir.path(), "r.html");
    let out = polyloom(&[
        "report",
        "--predictions",
        &path,
        "--baseline",
        "old",
        "-o",
        &page,
    ]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let html = std::fs::read_to_string(&page).unwrap();
    for id in ["calibration", "flips", "examples"] {
        assert!(html.contains(&format!("<section id=\"{id}\"")), "{id}");
    }
    assert!(html.contains("&lt;b&gt;no&lt;/b&gt;") && !html.contains("<b>no</b>"));
    assert!(html.contains("<b>new</b> better than <b>old</b>"));
}

/// Debian's Chromium; without it the check says that it did not run.
fn chromium() -> Option<PathBuf> {
    let found = ["/usr/bin/chromium", "/usr/bin/chromium-browser"]
        .into_iter()
        .map(PathBuf::from)
        .find(|p| p.exists());
    if found.is_none() {
        eprintln!("skipped: no Chromium; the page was not opened in a browser");
    }
    found
}

#[test]
fn a_browser_runs_the_page() {
    let Some(chromium) = chromium() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let scores = table(dir.path());
    let page = file(dir.path(), "r.html");
    let out = polyloom(&["report", &scores, "-o", &page]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let out = Command::new(chromium)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--dump-dom",
            "--virtual-time-budget=2000",
        ])
        .arg(format!("--user-data-dir={}", file(dir.path(), "profile")))
        .arg(format!("file://{page}"))
        .output()
        .unwrap();
    let dom = text(&out.stdout);
    if !out.status.success() || dom.trim().is_empty() {
        eprintln!(
            "skipped: Chromium does not start here: {}",
            text(&out.stderr)
        );
        return;
    }
    // The content security policy lets the page's own script run, and it got through.
    assert!(dom.contains("class=\"js\""), "{}", text(&out.stderr));
    assert!(dom.contains("<button type=\"button\">system</button>"));
    assert!(
        !text(&out.stderr).contains("Content Security Policy"),
        "{}",
        text(&out.stderr)
    );
}
