//! `polyloom tasks` as a user meets it.

use std::path::Path;
use std::process::{Command, Output};

use super::text;

fn tasks(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_polyloom"));
    command
        .current_dir(folder)
        .arg("tasks")
        .args(args)
        .env_remove("RUST_BACKTRACE")
        .env_remove("POLYLOOM_DATA")
        .env("NO_COLOR", "1");
    command.output().expect("the binary starts")
}

/// A table of 60 people with two targets.
fn people() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let row = |i: usize| {
        let job = ["cook", "clerk", "judge"][i % 3];
        let city = ["Ulm", "Bonn"][i % 2];
        let high = ["no", "yes"][usize::from(i.is_multiple_of(4))];
        format!("p{i},{},{job},{city},{high},{}.5\n", 20 + i % 40, i % 9)
    };
    let rows: String = (0..60).map(row).collect();
    let text = format!("person_id,age,job,city,income,hours\n{rows}");
    std::fs::write(dir.path().join("people.csv"), text).unwrap();
    dir
}

#[test]
fn shipped_tasks_are_listed_and_filtered() {
    let dir = tempfile::tempdir().unwrap();
    let out = tasks(dir.path(), &["list", "--tag", "sentiment"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert_eq!(
        text(&out.stdout),
        "task       type            metric    tags\n\
         text/mpqa  classification  accuracy  sentiment, news, sentiment\n\
         text/sst2  classification  accuracy  sentiment, films, sentiment\n\
         text/sst5  classification  accuracy  sentiment, films, sentiment\n"
    );
    let out = tasks(dir.path(), &["list", "--type", "retreival"]);
    assert_eq!(out.status.code(), Some(2));
    assert_eq!(
        text(&out.stderr),
        "error: --type: unknown type `retreival`\nhint: did you mean `retrieval`?\n"
    );
    let out = tasks(dir.path(), &["show", "text/sst3"]);
    assert!(
        text(&out.stderr)
            .starts_with("error: unknown task `text/sst3`\nhint: did you mean `text/sst2`")
    );
}

#[test]
fn a_table_becomes_a_task_that_passes_its_check() {
    let dir = people();
    let out = tasks(
        dir.path(),
        &["new", "people.csv", "--targets", "income,hours"],
    );
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert_eq!(text(&out.stdout), "people.task.toml\n");
    assert_eq!(
        text(&out.stderr),
        "column     role         because                 missing\n\
         person_id  id           every row differs\n\
         age        numeric      all values are numbers\n\
         job        categorical  3 different values\n\
         city       categorical  2 different values\n\
         income     target       named\n\
         hours      target       named\n\
         target income: classification (roc_auc)\n\
         target hours: regression (rmse)\n"
    );
    let again = tasks(dir.path(), &["new", "people.csv", "--targets", "income"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("people.task.toml: exists already\nhint: --force"));
    let out = tasks(dir.path(), &["check", "people.task.toml"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert_eq!(
        text(&out.stdout),
        "ok    people   train 48, validation 6, test 6 rows\n"
    );
    let out = tasks(dir.path(), &["new", "people.csv", "--targets", "incme"]);
    assert_eq!(out.status.code(), Some(2));
}

#[test]
fn a_failed_check_ends_with_1_and_a_broken_spec_with_2() {
    let dir = people();
    let spec = "schema = \"polyloom.task/1\"\nid = \"p\"\ntype = \"regression\"\n[source]\nkind = \"csv\"\n\
                [splits]\ntest = { file = \"people.csv\" }\n[fields]\ninput = \"jobs\"\ntarget = \"hours\"\n";
    std::fs::write(dir.path().join("p.toml"), spec).unwrap();
    let out = tasks(dir.path(), &["check", "p.toml"]);
    assert_eq!(out.status.code(), Some(1), "{}", text(&out.stderr));
    assert_eq!(
        text(&out.stdout),
        "fail  p   test 60 rows\n  fail  fields.input: the data has no column `jobs`; did you mean `job`? (no-column)\n"
    );
    std::fs::write(
        dir.path().join("p.toml"),
        spec.replace("[fields]", "[feilds]"),
    )
    .unwrap();
    let out = tasks(dir.path(), &["check", "p.toml"]);
    assert_eq!(out.status.code(), Some(2));
    let told = text(&out.stderr);
    assert!(told.starts_with("error: p.toml:8:2: unknown key `feilds`\n   8 | [feilds]\n     |  ^^^^^^ expected one of: schema"), "{told}");
    assert!(told.ends_with("hint: did you mean `fields`?\n"), "{told}");
}

#[test]
fn tables_are_split_and_tasks_are_sampled() {
    let dir = people();
    let out = tasks(
        dir.path(),
        &[
            "split",
            "people.csv",
            "--group",
            "city",
            "--parts",
            "a=0.5,b=0.5",
            "-o",
            "out",
        ],
    );
    assert!(out.status.success(), "{}", text(&out.stderr));
    let read = |n: &str| std::fs::read_to_string(dir.path().join("out").join(n)).unwrap();
    assert_eq!(
        (read("a.csv").lines().count(), read("b.csv").lines().count()),
        (31, 31)
    );
    assert!(read("a.csv").contains("Ulm") != read("a.csv").contains("Bonn"));
    let out = tasks(
        dir.path(),
        &["split", "people.csv", "--parts", "a=0.5,b=0.6", "-o", "new"],
    );
    assert_eq!(out.status.code(), Some(2));
    tasks(dir.path(), &["new", "people.csv", "--targets", "income"]);
    let out = tasks(
        dir.path(),
        &["sample", "people.task.toml", "--draws", "5", "--json"],
    );
    let first = text(&out.stdout);
    let event: serde_json::Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&event["rows"], &event["share"], &event["drawn"]),
        (&48.into(), &1.0.into(), &5.into())
    );
}

/// A lm-eval task of three rows with a group, and one that needs code.
fn foreign() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    put(
        "toy.jsonl",
        "{\"q\": \"1+1\", \"a\": 0}\n{\"q\": \"1+2\", \"a\": 1}\n{\"q\": \"2+0\", \"a\": 0}\n",
    );
    put(
        "toy.yaml",
        "task: toy\ndataset_path: json\ndataset_kwargs: {data_files: {test: toy.jsonl}}\n\
         output_type: multiple_choice\ntest_split: test\nfewshot_split: test\nnum_fewshot: 1\n\
         fewshot_config: {sampler: first_n}\ndoc_to_text: \"{{q}} =\"\ndoc_to_choice: [\"2\", \"3\"]\n\
         doc_to_target: a\nmetric_list: [{metric: acc}]\n",
    );
    put(
        "code.yaml",
        "task: code\ndoc_to_text: !function utils.ask\n",
    );
    dir
}

#[test]
fn foreign_tasks_are_imported_shown_and_exported() {
    let dir = foreign();
    let out = tasks(dir.path(), &["import", ".", "-o", "specs"]);
    assert_eq!(out.status.code(), Some(1), "{}", text(&out.stderr));
    assert_eq!(text(&out.stdout), "specs\n");
    assert_eq!(
        text(&out.stderr),
        "task  type             rows       format\n\
         toy   multiple_choice  its files  lm-eval\n\
         refused: ./code.yaml: needs the Python function `utils.ask`\n"
    );
    let out = tasks(dir.path(), &["show", "specs/toy.toml", "--example", "2"]);
    assert_eq!(
        text(&out.stdout),
        "1+1 = 2\n\n1+2 =\n   \" 2\"\n * \" 3\"\n",
        "{}",
        text(&out.stderr)
    );
    let out = tasks(
        dir.path(),
        &["export", "specs/toy.toml", "-o", "again.yaml"],
    );
    assert!(out.status.success(), "{}", text(&out.stderr));
    let out = tasks(dir.path(), &["import", "again.yaml", "-o", "second"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let shown = |spec: &str| text(&tasks(dir.path(), &["show", spec, "--example", "3"]).stdout);
    assert_eq!(shown("specs/toy.toml"), shown("second/toy.toml"));
    let out = tasks(
        dir.path(),
        &["import", "toy.jsonl", "--format", "lmeval", "--dry-run"],
    );
    assert_eq!(out.status.code(), Some(2));
    assert_eq!(
        text(&out.stderr),
        "error: --format: unknown format `lmeval`\nhint: did you mean `lm-eval`?\n"
    );
    let out = tasks(dir.path(), &["import", "toy.jsonl", "--dry-run"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(
        text(&out.stderr)
            .contains("toy.jsonl: holds no task file of a known format\nhint: --format")
    );
}

#[test]
fn levels_are_held_out_and_leaks_end_with_1() {
    let dir = tempfile::tempdir().unwrap();
    let row = |i: usize| format!("c{},t{},text {i}\n", i % 3, i % 9);
    let rows: String = (0..180).map(row).collect();
    std::fs::write(
        dir.path().join("a.csv"),
        format!("category,task,text\n{rows}"),
    )
    .unwrap();
    let split = |table: &str| {
        tasks(
            dir.path(),
            &[
                "split",
                table,
                "--levels",
                "category,task",
                "-o",
                "out",
                "--force",
            ],
        )
    };
    let out = split("a.csv");
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(text(&out.stderr).ends_with("no row of a held-out level is in train\n"));
    let lines = |name: &str| {
        let file = dir.path().join("out").join(name);
        std::fs::read_to_string(file).unwrap().lines().count() - 1
    };
    assert_eq!(lines("held_out_category.csv"), 60);
    assert_eq!(lines("held_out_task.csv"), 20);
    assert_eq!(lines("held_out_instance.csv"), 20);
    assert_eq!(lines("train.csv"), 80);
    let same: String = (0..180)
        .map(|i| format!("c{},t{},same\n", i % 3, i % 9))
        .collect();
    std::fs::write(
        dir.path().join("b.csv"),
        format!("category,task,text\n{same}"),
    )
    .unwrap();
    let out = split("b.csv");
    assert_eq!(out.status.code(), Some(1));
    assert!(
        text(&out.stderr).contains("leak: 60 of 60 rows of held_out_category are in train too")
    );
}

#[test]
fn training_files_are_searched_for_the_texts_of_a_task() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let long = |k: usize| {
        (0..15)
            .map(|i| format!("w{k}x{i}"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let rows: String = (0..20)
        .map(|k| format!("{},{}\n", long(k), k % 2))
        .collect();
    put("test.csv", &format!("text,label\n{rows}"));
    put(
        "corpus.txt",
        &format!("A B C {} D E F", long(3).to_uppercase()),
    );
    put(
        "t.toml",
        "schema = \"polyloom.task/1\"\nid = \"t\"\ntype = \"classification\"\n[source]\nkind = \"csv\"\n\
         [splits]\ntest = { file = \"test.csv\" }\n[fields]\ninput = \"text\"\ntarget = \"label\"\n",
    );
    let args = [
        "check",
        "t.toml",
        "--against",
        "corpus.txt",
        "--clean",
        "clean",
    ];
    let out = tasks(dir.path(), &args);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert_eq!(
        text(&out.stdout),
        "warn  t   test 20 rows\n  warn  splits.test: 1 of 20 rows have a run of 13 words that the training files \
         have; most in row 4 (100 % of its runs) (contamination)\n  note  splits.test: 20 of 20 rows were compared \
         with 1 training files; 0 are shorter than 13 words (compared)\n"
    );
    let clean = std::fs::read_to_string(dir.path().join("clean/t/test.jsonl")).unwrap();
    assert_eq!(clean.lines().count(), 19);
    assert!(!clean.contains("w3x1"));
    let out = tasks(
        dir.path(),
        &["check", "t.toml", "--against", "corpus.txt", "--strict"],
    );
    assert_eq!(out.status.code(), Some(1));
}

#[test]
fn downsampling_states_the_kept_rank_correlation() {
    let dir = tempfile::tempdir().unwrap();
    let row = |i: usize| {
        let (a, b) = (i as f64, ((i * 7) % 12) as f64);
        format!(
            "s{i},{a},{},{b},{}\n",
            2.0 * a + 1.0,
            if i.is_multiple_of(2) {
                String::new()
            } else {
                "1".into()
            }
        )
    };
    let rows: String = (0..12).map(row).collect();
    std::fs::write(
        dir.path().join("scores.csv"),
        format!("system,a,a2,b,gappy\n{rows}"),
    )
    .unwrap();
    let out = tasks(dir.path(), &["downsample", "scores.csv"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert_eq!(text(&out.stdout), "a2\nb\n");
    let told = text(&out.stderr);
    assert!(
        told.contains("1 tasks are left out for their gaps: gappy"),
        "{told}"
    );
    assert!(told.contains("a        1.000"), "{told}");
    assert!(told.contains("2 of 3 tasks kept over 12 systems; rank correlation with all tasks (Spearman, Borda) 0."), "{told}");
    let out = tasks(dir.path(), &["downsample", "scores.csv", "--keep", "aa"]);
    assert_eq!(out.status.code(), Some(2));
}

/// 300 MB through a pipe into a program that may take 256 MB of address space.
#[cfg(target_os = "linux")]
#[test]
fn a_table_larger_than_memory_is_streamed() {
    use std::io::Write as _;

    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("big.csv");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    std::fs::write(
        dir.path().join("t.toml"),
        "schema = \"polyloom.task/1\"\nid = \"t\"\ntype = \"regression\"\nweights = { train = 1.0 }\n[source]\nkind = \"csv\"\n\
         [splits]\ntrain = { file = \"big.csv\" }\n[fields]\ninput = \"text\"\ntarget = \"y\"\n",
    )
    .unwrap();
    let child = Command::new("sh")
        .current_dir(dir.path())
        .args([
            "-c",
            "ulimit -v 256000; exec \"$0\" tasks sample t.toml --json --threads 1",
        ])
        .arg(env!("CARGO_BIN_EXE_polyloom"))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // In a thread of its own: where the program ends early, nothing waits for the pipe.
    std::thread::spawn(move || {
        let mut sink = std::fs::File::options().write(true).open(&pipe)?;
        sink.write_all(b"text,y\n")?;
        let block = format!("{},1.5\n", "x".repeat(1000)).repeat(1024);
        (0..300).try_for_each(|_| sink.write_all(block.as_bytes()))
    });
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(
        text(&out.stdout).contains("\"rows\":307200"),
        "{}",
        text(&out.stdout)
    );
}

/// docs/guides/two-label-columns.md, run and compared with what it shows.
#[test]
fn the_guide_on_two_label_columns_is_true() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guides/two-label-columns.md");
    let page = std::fs::read_to_string(page).unwrap();
    let dir = people();
    let table = std::fs::read_to_string(dir.path().join("people.csv")).unwrap();
    let dated = table.lines().enumerate().map(|(i, l)| match i {
        0 => format!("{l},year\n"),
        _ => format!("{l},{}\n", 2000 + i % 20),
    });
    let dated: String = dated.collect();
    let mut ran = 0;
    let mut inside = false;
    for line in page.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            _ if inside => {
                let command = line.split('#').next().unwrap_or_default();
                let words: Vec<&str> = command.split_whitespace().collect();
                assert_eq!(words[..2], ["polyloom", "tasks"], "{line}");
                if words.contains(&"--time") {
                    std::fs::write(dir.path().join("people.csv"), &dated).unwrap();
                }
                let out = tasks(dir.path(), &words[2..]);
                assert!(out.status.success(), "{line}: {}", text(&out.stderr));
                let shown = text(&out.stderr) + &text(&out.stdout);
                if !words.contains(&"--force") {
                    for told in shown.lines() {
                        assert!(
                            page.contains(&format!("\n    {told}\n")),
                            "not in the guide: {told}"
                        );
                    }
                }
                ran += 1;
            }
            _ => {}
        }
    }
    assert_eq!(ran, 5);
    let out = tasks(dir.path(), &["show", "people.task.toml"]);
    assert!(
        text(&out.stdout).contains("group       city as task"),
        "{}",
        text(&out.stdout)
    );
}
