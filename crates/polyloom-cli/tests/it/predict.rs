//! `polyloom predict`: a file of rows becomes a file of predictions that `eval` scores.

use std::path::Path;

use super::{eval_models, polyloom, run, text};

#[test]
fn rows_get_predictions_that_eval_reads() {
    let dir = tempfile::tempdir().unwrap();
    let picture = run::picture(dir.path());
    let folder = eval_models::model(dir.path(), "mine");
    let head = folder.join("heads/light/level.safetensors");
    eval_models::head(&head, &[0.0, 3.0f32.ln()], Some(&["dark", "bright"]), 24);
    let rows = dir.path().join("new.csv");
    std::fs::write(&rows, format!("id,input\na,{picture}\nb,{picture}\n")).unwrap();
    let (model, rows) = (folder.display().to_string(), rows.display().to_string());
    let args = ["predict", &*model, &*rows, "--task", "level"];
    let out = polyloom(&args);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let file = dir.path().join("new.predictions.csv");
    assert_eq!(text(&out.stdout).trim(), file.display().to_string());
    let found = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = found.lines().collect();
    assert_eq!(lines[0], "id,prediction,probabilities");
    assert!(
        lines.len() == 3 && lines[1].starts_with("a,bright,\"[0.25"),
        "{found}"
    );
    // Not over what is there, and only into files that are read again.
    let refused = |more: &[&str]| {
        let out = polyloom(&[&args[..], more].concat());
        assert_eq!(out.status.code(), Some(2));
        text(&out.stderr)
    };
    assert!(refused(&[]).contains("--force replaces it"));
    assert!(refused(&["-o", "x.txt"]).contains(".tsv, .jsonl or .parquet"));
    assert!(refused(&["-o", "x.csv", "--column", "words"]).contains("its columns: id, input"));
    assert!(!Path::new("x.csv").exists());
    // Other formats hold the same.
    for (ending, begin) in [
        ("tsv", &b"id\tprediction"[..]),
        (
            "jsonl",
            b"{\"id\":\"a\",\"prediction\":\"bright\",\"probabilities\":[0.25",
        ),
        ("parquet", b"PAR1"),
    ] {
        let other = dir.path().join(format!("other.{ending}"));
        let other = other.display().to_string();
        let out = polyloom(&[&args[..], &["-o", &*other]].concat());
        assert!(out.status.success(), "{}", text(&out.stderr));
        assert!(
            std::fs::read(&other).unwrap().starts_with(begin),
            "{ending}"
        );
    }
    // Predictions of a task are scored as any others are.
    let scores = dir.path().join("truth.task.toml");
    let spec = "schema = \"polyloom.task/1\"\nid = \"light/level\"\ntype = \"classification\"\n[source]\nkind = \"csv\"\n\
        root = \".\"\n[splits]\ntest = { file = \"truth.csv\" }\n[fields]\nid = \"id\"\ninput = \"input\"\ntarget = \"level\"\n\
        [labels]\nnames = [\"dark\", \"bright\"]\n[[metrics]]\nname = \"accuracy\"\nprimary = true\n";
    std::fs::write(&scores, spec).unwrap();
    std::fs::write(
        dir.path().join("truth.csv"),
        "id,input,level\na,x,bright\nb,x,dark\n",
    )
    .unwrap();
    let scores = scores.display().to_string();
    for file in [&file, &dir.path().join("other.parquet")] {
        let file = file.display().to_string();
        let out = polyloom(&["eval", "--predictions", &*file, "--task", &*scores]);
        assert!(text(&out.stdout).contains("0.500"), "{}", text(&out.stderr));
    }
}
