//! `polyloom board` as a user meets it: the guide docs/guides/lm-eval-board.md, run on its made-up files, and real tables
//! where `../shared/data` is there.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{polyloom, text};

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn runs() -> String {
    here("tests/it/lm_eval_made_up").display().to_string()
}

/// The answer, which fits a terminal.
fn answer(args: &[&str]) -> String {
    let out = polyloom(&[&["board"], args].concat());
    assert_eq!(
        out.status.code(),
        Some(0),
        "{args:?}: {}",
        text(&out.stderr)
    );
    let shown = text(&out.stdout);
    if !args
        .iter()
        .any(|a| ["csv", "md", "latex", "--json"].contains(a))
    {
        let long = shown.lines().find(|l| l.chars().count() > 80);
        assert_eq!(long, None, "{args:?}");
    }
    shown
}

fn failure(args: &[&str]) -> String {
    let out = polyloom(&[&["board"], args].concat());
    assert_eq!(
        out.status.code(),
        Some(2),
        "{args:?}: {}",
        text(&out.stdout)
    );
    text(&out.stderr)
}

fn events(args: &[&str]) -> Vec<Value> {
    let shown = answer(&[args, &["--json"]].concat());
    shown
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

/// Every block of the guide that follows a command is what the command prints.
#[test]
fn the_guide_shows_what_is_printed() {
    let guide = std::fs::read_to_string(here("../../docs/guides/lm-eval-board.md")).unwrap();
    let blocks: Vec<&str> = guide.split("```").collect();
    let (mut compared, mut commands) = (0, Vec::new());
    for block in blocks.iter().skip(1).step_by(2) {
        if let Some(shell) = block.strip_prefix("sh\n") {
            commands = shell
                .lines()
                .filter(|l| l.starts_with("polyloom board runs/"))
                .collect();
            for line in &commands {
                let line = line.split(['|', '>']).next().unwrap();
                answer(&words(line).iter().map(String::as_str).collect::<Vec<_>>());
            }
        } else if let Some(shown) = block.strip_prefix("text\n") {
            let words = words(commands[0]);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            assert_eq!(answer(&words), shown, "{words:?}");
            compared += 1;
        }
    }
    assert_eq!(compared, 3);
}

/// The words of a command line of the guide, after `polyloom board`.
fn words(line: &str) -> Vec<String> {
    let line = line.replace('\'', "");
    let words = line.split_whitespace().skip(2);
    words
        .map(|w| if w == "runs/" { runs() } else { w.to_owned() })
        .collect()
}

#[test]
fn notes_say_what_results_files_lack() {
    let out = polyloom(&["board", &runs()]);
    let notes = text(&out.stderr);
    assert!(notes.contains("unpaired only"), "{notes}");
    assert!(notes.contains("acc_norm"), "{notes}");
    let shown = text(&out.stdout);
    assert!(
        !shown.lines().next().unwrap().contains("mean"),
        "a perplexity is no accuracy: {shown}"
    );
}

#[test]
fn events_hold_what_the_table_shows() {
    let all = events(&[&runs(), "--aggregate", "borda,bt"]);
    let systems: Vec<&Value> = all.iter().filter(|e| e["type"] == "system").collect();
    assert_eq!(systems.len(), 10);
    assert_eq!(
        (&systems[0]["name"], &systems[0]["place"]),
        (&"example/pine-7b".into(), &1.into())
    );
    assert_eq!(
        systems[0]["over_tasks"]["places"],
        serde_json::json!([1, 2])
    );
    assert_eq!(systems[0]["costs"]["params"], 7.2e9);
    let tasks: Vec<&Value> = all.iter().filter(|e| e["type"] == "task").collect();
    let lambada = tasks
        .iter()
        .find(|t| t["name"] == "lambada_openai")
        .unwrap();
    assert_eq!(lambada["higher_is_better"], false);
    assert_eq!(all.last().unwrap()["systems"], 10);
    // The same seed, the same draws.
    assert_eq!(
        all,
        events(&[&runs(), "--aggregate", "borda,bt", "-j", "1"])
    );
}

fn file(dir: &Path, name: &str, content: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, content).unwrap();
    path.display().to_string()
}

#[test]
fn experts_matrices_and_stages() {
    let dir = tempfile::tempdir().unwrap();
    let table = "system,task,value,skill,domain\n\
        alone,a,0.8,read,law\nalone,b,0.9,write,law\nalone,c,0.5,read,food\n\
        merged,a,0.72,read,law\nmerged,b,0.9,write,law\nmerged,c,0.4,read,food\n\
        other,a,0.4,read,law\nother,b,0.45,write,law\n";
    let table = file(dir.path(), "t.csv", table);
    let shown = answer(&[
        &table,
        "--expert",
        "alone",
        "-a",
        "delta_m",
        "--missing",
        "skip",
        "--show",
        "weakest",
    ]);
    assert!(
        shown.contains("-10.0 %") && shown.contains("-20.0 %  c"),
        "{shown}"
    );
    assert!(!shown.contains("alone"), "{shown}");
    let shown = answer(&[&table, "--show", "matrix", "--by", "skill,domain"]);
    assert!(shown.contains("none"), "other has nothing on food: {shown}");
    assert!(failure(&[&table, "--show", "matrix"]).contains("--by"));
    assert!(failure(&[&table, "-a", "delta_m"]).contains("--expert"));
    assert!(failure(&[&table, "--expert", "nobody"]).contains("alone, merged, other"));
    assert!(failure(&[&table, "-a", "median"]).contains("win_rate"));
    assert!(failure(&[&table, "--where", "colour=red"]).contains("domain"));

    let stages = file(
        dir.path(),
        "stages.csv",
        "stage,t1,t2\nbase,0.1,0.2\none,0.9,0.3\ntwo,0.7,0.8\n",
    );
    let shown = answer(&[
        &stages, "--system", "stage", "-a", "mean", "--show", "stages",
    ]);
    assert!(
        shown.contains("backward transfer (BWT)          -0.2000"),
        "{shown}"
    );
    assert!(
        shown.contains("forward transfer (FWT)            0.1000"),
        "{shown}"
    );

    let attempts = "system,id,samples,passes\nx,1,8,4\nx,2,8,1\nx,3,8,0\n";
    let attempts = file(dir.path(), "attempts.csv", attempts);
    let shown = answer(&[&attempts, "--show", "coverage"]);
    assert!(
        shown.contains("pass@1 0.208") && shown.contains("pass@8 0.667"),
        "{shown}"
    );

    let bleu = file(
        dir.path(),
        "bleu.csv",
        "system,task,metric,value\nx,de,bleu,30\ny,de,bleu,31\n",
    );
    let out = polyloom(&["board", &bleu]);
    assert!(
        text(&out.stderr).contains("every score here is bleu"),
        "{}",
        text(&out.stderr)
    );
}

#[test]
fn seeds_and_instructions() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = "system,task,instruction,accuracy\n".to_owned();
    for (system, by) in [("x", 0.0), ("y", 0.1)] {
        for task in ["a", "b"] {
            for (i, plus) in [0.0, 0.02, 0.04].iter().enumerate() {
                table += &format!("{system},{task},i{i},{}\n", 0.5 + by + plus);
            }
        }
    }
    let table = file(dir.path(), "i.csv", &table);
    let shown = answer(&[&table, "--show", "instructions,noise", "--k", "1"]);
    assert!(shown.contains("hits"), "{shown}");
    let gains = events(&[&table, "--show", "instructions", "--k", "1"]);
    let best = gains
        .iter()
        .find(|e| e["type"] == "instruction" && e["number"] == 3)
        .unwrap();
    assert_eq!(best["hits"], 1.0);
}

#[test]
fn real_tables() {
    let data = here("../../../shared/data/results");
    if !data.exists() {
        println!("skipped: ../shared/data is not here");
        return;
    }
    let path = |name: &str| data.join(name).display().to_string();
    let bbh = events(&[&path("bbh_davinci.parquet")]);
    assert_eq!(bbh[0]["name"], "chain_of_thought");
    assert_eq!(bbh[1]["resolved_from_above"], true);
    let mteb = events(&[
        &path("mteb_scores.parquet"),
        "-a",
        "borda_mteb",
        "--top",
        "1",
    ]);
    let sum: f64 = mteb
        .iter()
        .filter_map(|e| e["values"]["borda_mteb"]["value"].as_f64())
        .sum();
    assert_eq!(sum, 4_041_581.0, "docs/results/mteb-board.md");
    let family = "family=vit-b-32";
    let merging = path("merging_20_tasks.parquet");
    let merging = events(&[
        &merging,
        "--where",
        family,
        "--expert",
        "finetuned",
        "-a",
        "normalised",
    ]);
    assert_eq!(merging[0]["name"], "pretrained");
    assert!(failure(&[&path("merging_20_tasks.parquet")]).contains("--where family="));
}

#[test]
fn strengths_from_single_answers_have_places() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("answers.csv");
    let mut rows = String::from("system,task,id,score\n");
    for task in ["a", "b"] {
        for id in 0..60 {
            for (system, tenths) in [("best", 9), ("fair", 6), ("poor", 3)] {
                let right = u8::from((id * 7 + 3) % 10 < tenths);
                rows += &format!("{system},{task},{id},{right}\n");
            }
        }
    }
    std::fs::write(&file, rows).unwrap();
    let file = file.display().to_string();
    let all = events(&[&file, "--aggregate", "bt_answers,pl_answers,davidson"]);
    let system = |name: &str| {
        let found = all
            .iter()
            .find(|e| e["type"] == "system" && e["name"] == name);
        found.unwrap_or_else(|| panic!("{all:?}")).clone()
    };
    let best = system("best");
    assert!(best.to_string().contains("bt_answers"), "{best}");
    let shown = answer(&[&file, "--aggregate", "bt_answers"]);
    let place = |name: &str| shown.lines().position(|l| l.contains(name)).unwrap();
    assert!(
        place("best") < place("fair") && place("fair") < place("poor"),
        "{shown}"
    );
    let said = failure(&[&file, "--aggregate", "bt_answers", "--show", "stability"]);
    assert!(said.contains("reads single answers"), "{said}");
}
