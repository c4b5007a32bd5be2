//! The whole page.

use super::*;
use crate::evaluate::aggregate::{Direction, TaskColumn};
use crate::evaluate::board::predictions::Example;
use crate::evaluate::board::results::{Cell, System, Task};

const EVIL: &str = "</script><img src=x onerror=alert(1)>\"'`|_&";

/// Systems that get better by number, on tasks of differing difficulty, with some ripple.
fn results(systems: usize, tasks: usize) -> Results {
    let score = |s: usize, t: usize| {
        let ripple = ((s * 7 + t * 13) % 11) as f64 / 100.0;
        0.3 + 0.4 * s as f64 / systems as f64 + 0.1 * (t % 3) as f64 + ripple
    };
    Results {
        systems: (0..systems)
            .map(|s| {
                let mut system = System::new(if s == 1 { EVIL.into() } else { format!("m{s}") });
                system.costs.insert("params".into(), 1e6 * (s + 1) as f64);
                system.source = Some(format!("{EVIL}.json").into());
                system
            })
            .collect(),
        tasks: (0..tasks)
            .map(|t| {
                let mut task = Task::new(TaskColumn::new(format!("task{t}")), "accuracy");
                task.column.expert = Some(0.8);
                let skill = format!("skill {}", t % 3);
                task.tags.insert("skill".into(), vec![skill, EVIL.into()]);
                task
            })
            .collect(),
        cells: (0..systems * tasks)
            .map(|i| Some(Cell::new(score(i / tasks, i % tasks))))
            .collect(),
    }
}

fn draws(draws: usize) -> Settings {
    Settings {
        draws,
        ..Settings::default()
    }
}

fn report(results: Results) -> Report {
    let inputs = Inputs {
        results,
        ..Inputs::default()
    };
    let options = Options {
        settings: draws(200),
        ..Options::default()
    };
    Report::of(inputs, options).unwrap()
}

/// Elements open and close in order, attributes are quoted; what stands in scripts is passed over.
pub(super) fn well_formed(html: &str) {
    let void = ["meta", "input", "br", "!DOCTYPE"];
    let mut open: Vec<&str> = Vec::new();
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        assert!(
            !rest[..at].contains('>') || open.last() == Some(&"style"),
            "{}",
            &rest[..at.min(200)]
        );
        rest = &rest[at + 1..];
        let end = {
            let mut quoted = false;
            let close = rest.char_indices().find(|(_, c)| {
                quoted ^= *c == '"';
                *c == '>' && !quoted
            });
            close.expect("a tag ends").0
        };
        let tag = &rest[..end];
        rest = &rest[end + 1..];
        let name = tag
            .trim_start_matches('/')
            .split([' ', '/'])
            .next()
            .unwrap();
        assert!(!tag.contains('<'), "{tag}");
        // What is quoted is text; the rest holds no handler and nothing to fetch.
        let bare: String = tag.split('"').step_by(2).collect();
        assert!(!bare.contains(" src") && !bare.contains(" on"), "{tag}");
        if let Some((_, link)) = tag.split_once("href=\"") {
            // Within the page, or beside it: no scheme, no host.
            let link = link.split('"').next().unwrap();
            assert!(
                link.starts_with('#') || !link.contains([':', '?']) && !link.starts_with('/'),
                "{tag}"
            );
        }
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "{tag}");
        } else if !tag.ends_with('/') && !void.contains(&name) {
            open.push(name);
            if name == "script" || name == "style" {
                let close = rest.find(&format!("</{name}>")).expect("it ends");
                rest = &rest[close..];
            }
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

/// The page before its scripts.
fn shown(html: &str) -> &str {
    html.split("<script type=\"application/json\" id=\"data\"")
        .next()
        .unwrap()
}

fn predictions(wrong: impl Fn(usize) -> bool) -> Predictions {
    let example = |i: usize| Example {
        value: f64::from(u8::from(!wrong(i))),
        texts: Some((
            if wrong(i) { EVIL.into() } else { "yes".into() },
            "yes".into(),
        )),
        confidence: Some(if wrong(i) { 0.55 } else { 0.9 }),
        second: None,
        input: Some(format!("{EVIL}\nquestion {i}")),
    };
    let examples: IndexMap<String, Example> = (0..200)
        .map(|i| (format!("{EVIL}{i}"), example(i)))
        .collect();
    Predictions {
        path: "p.csv".into(),
        tasks: [
            ("task0".to_owned(), examples.clone()),
            ("task1".to_owned(), examples),
        ]
        .into(),
        binary: true,
    }
}

#[test]
fn a_page_of_everything() {
    let predictions: IndexMap<String, Predictions> = [
        ("a".to_owned(), predictions(|i| i % 10 == 0)),
        (EVIL.to_owned(), predictions(|i| i % 5 == 0)),
        ("c".to_owned(), predictions(|i| i % 3 == 0)),
    ]
    .into();
    let inputs = Inputs {
        results: results_of(&predictions),
        predictions,
        attempts: [("a".to_owned(), vec![(8, 1), (8, 8), (8, 0)])].into(),
        notes: vec![EVIL.into()],
    };
    assert_eq!(inputs.results.cell(0, 1).unwrap().value, 0.9);
    let options = Options {
        settings: draws(200),
        baseline: Some("a".into()),
        title: Some(EVIL.into()),
        ..Options::default()
    };
    let found = Report::of(inputs, options).unwrap();
    let html = found.html();
    well_formed(&html);
    for id in [
        "leaderboard",
        "intervals",
        "scores",
        "wins",
        "orders",
        "calibration",
        "selective",
        "coverage",
        "flips",
        "examples",
    ] {
        assert!(html.contains(&format!("<section id=\"{id}\"")), "{id}");
    }
    assert!(!html.contains("<img") && !shown(&html).contains("NaN"));
    // One script runs, and only that one may.
    assert_eq!(html.matches("<script>").count(), 1);
    assert!(html.contains("script-src 'sha256-"));
    // Two tasks are too few to draw again, so the examples are.
    assert_eq!(found.json()["basis"], "examples");
    assert!(
        found
            .sentence()
            .contains("is told apart from every other system"),
        "{}",
        found.sentence()
    );
    assert_eq!(found.json()["flips"][0]["lost"], 20);
}

#[test]
fn many_forms_of_one_table() {
    let found = report(results(6, 12));
    let html = found.html();
    well_formed(&html);
    for foreign in [
        "http:",
        "https:",
        "url(",
        "@import",
        "<link",
        "<img",
        "onerror=alert(1)>",
    ] {
        assert!(!html.contains(foreign), "{foreign}");
    }
    for id in ["difference", "skills", "tasks"] {
        assert!(html.contains(&format!("<section id=\"{id}\"")), "{id}");
    }
    let json = found.json();
    assert_eq!(json["schema"], "polyloom.report/1");
    assert_eq!(
        (json["rank_by"].as_str(), json["basis"].as_str()),
        (Some("mean"), Some("tasks"))
    );
    assert_eq!(json["systems"][0]["name"], "m5");
    assert_eq!(json["systems"][0]["costs"]["params"], 6e6);
    // What stands in the page is the same.
    let start = html.find("id=\"data\">").unwrap() + 10;
    let end = start + html[start..].find("</script>").unwrap();
    let inside: serde_json::Value = serde_json::from_str(&html[start..end]).unwrap();
    assert_eq!(inside, json);
    let markdown = found.markdown();
    let bars = |line: &str| line.replace("\\|", "").matches('|').count();
    let lines: Vec<&str> = markdown.lines().filter(|l| l.starts_with('|')).collect();
    assert_eq!(lines.len(), 8);
    assert!(
        lines.iter().all(|l| bars(l) == bars(lines[0])),
        "{markdown}"
    );
    assert!(!markdown.contains("<img"));
    let csv = found.csv();
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let rows: Vec<csv::StringRecord> = reader.records().map(std::result::Result::unwrap).collect();
    assert_eq!((rows.len(), &rows[0][1]), (6, "m5"));
    let value: f64 = rows[0][2].parse().unwrap();
    assert_eq!(Some(value), json["systems"][0]["value"].as_f64());
    let latex = found.latex();
    assert_eq!(latex.matches("\\\\\n").count(), 7);
    assert!(latex.contains("\\textbackslash") || !latex.contains("m\\_"));
}

#[test]
fn numbers_lead_to_their_task_and_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = results(3, 6);
    all.tasks[2].hash = Some("0123456789abcdef0123".into());
    let name = "javascript:alert(1) \"&.parquet";
    for at in [2, 8] {
        all.cells[at].as_mut().unwrap().record = Some(dir.path().join("records").join(name));
    }
    let found = report(all);
    let html = found.html_in(Some(&dir.path().join("pages")));
    well_formed(&html);
    let link = "<a href=\"../records/javascript%3Aalert%281%29%20%22%26.parquet\">";
    // In the heat map, and in the list of records.
    assert_eq!(html.matches(link).count(), 4);
    assert!(html.contains("; task 0123456789abcdef; record "));
    assert!(html.contains("<a href=\"#task-2\">") && html.contains("<tr id=\"task-2\">"));
    assert!(html.contains("<a href=\"#from-2\">m2</a>") && html.contains("<li id=\"from-2\">"));
    assert!(
        found.json()["systems"][0]["records"].is_null(),
        "m2 has none"
    );
    // A page of which it is not known where it will stand names records.
    assert!(!found.html().contains("<a href=\"../"));
}

#[test]
fn gaps_directions_and_single_rows() {
    let mut gaps = results(5, 8);
    for (i, cell) in gaps.cells.iter_mut().enumerate() {
        if i % 7 == 3 {
            *cell = None;
        }
    }
    gaps.tasks[2].column.direction = Some(Direction::Lower);
    gaps.tasks[5].column.direction = None;
    let found = report(gaps);
    // With gaps the strengths come first, as on the board.
    assert_eq!(found.json()["rank_by"], "bt");
    let html = found.html();
    well_formed(&html);
    assert!(!shown(&html).contains("NaN"));
    let single = report(results(1, 2));
    assert!(single.sentence().contains("the only ranked system"));
    well_formed(&single.html());
    let mut empty = results(3, 2);
    empty.cells = vec![None; 6];
    let html = report(empty).html();
    well_formed(&html);
    assert!(html.contains("No system has"), "nothing measured is said");
}

#[test]
fn a_large_table_stays_small() {
    let found = report(results(160, 338));
    let html = found.html();
    well_formed(&html);
    assert!(html.len() < 3_000_000, "{} bytes", html.len());
    assert!(html.contains("class=\"compact\"") && html.matches("<td").count() < 12_000);
}

#[test]
fn stages_of_learning() {
    let inputs = Inputs {
        results: results(4, 3),
        ..Inputs::default()
    };
    let options = |stages: &[&str]| Options {
        stages: stages.iter().map(|s| (*s).to_owned()).collect(),
        settings: draws(50),
        ..Options::default()
    };
    let found = Report::of(inputs.clone(), options(&["m0", "m2", "m3"])).unwrap();
    let html = found.html();
    well_formed(&html);
    assert!(html.contains("<section id=\"continual\""));
    assert!(found.json()["continual"]["average accuracy (ACC)"].is_number());
    for (bad, code) in [
        (&["m0", "m2"][..], "stages"),
        (&["m0", "m2", "x"], "stages"),
    ] {
        assert_eq!(
            Report::of(inputs.clone(), options(bad))
                .err()
                .unwrap()
                .code(),
            code
        );
    }
    let with = |change: &dyn Fn(&mut Options)| {
        let mut options = options(&[]);
        change(&mut options);
        Report::of(inputs.clone(), options)
            .err()
            .map(|e| e.code().to_owned())
    };
    assert_eq!(
        with(&|o| o.baseline = Some("x".into())).as_deref(),
        Some("unknown-system")
    );
    assert_eq!(
        with(&|o| o.by = Some("x".into())).as_deref(),
        Some("unknown-tag")
    );
    assert_eq!(
        with(&|o| o.rank_by = Some(Aggregate::AboveChance)).as_deref(),
        Some("cannot-rank")
    );
    assert_eq!(with(&|o| o.rank_by = Some(Aggregate::DeltaM)), None);
}
