//! `polyloom stats` as a user meets it: small experts on the quickstart's tasks, and merges that read what it wrote.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use polyloom_core::Checkpoint;

use super::{polyloom, text};

fn spec(task: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("quickstart/data");
    let file = folder.join(task).join("task.toml").canonicalize().unwrap();
    file.display().to_string()
}

fn done(args: &[&str]) -> (String, String) {
    let out = polyloom(args);
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(0), "{args:?}: {said}");
    (text(&out.stdout), said)
}

fn refused(args: &[&str], expected: &str) {
    let out = polyloom(args);
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{args:?}: {said}");
    assert!(said.contains(expected), "{said}");
}

fn values(file: &Path) -> BTreeMap<String, Vec<f32>> {
    let file = Checkpoint::open(file).unwrap();
    let read = |(name, stored): (&String, _)| (name.clone(), file.read_all(stored).unwrap());
    file.tensors().iter().map(read).collect()
}

/// Two experts of one small base, on digits and on signs; heads are in their folders.
struct Experts {
    dir: tempfile::TempDir,
}

impl Experts {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = Self { dir };
        let recipe = format!(
            "version = 1\nseed = 3\n[train]\ntasks = [{:?}]\nlimit = 60\nbatch = 16\nsteps = 10\nvalidation_limit = 10\n\
             [train.new]\nmodel_type = \"polyloom-mlp\"\nimage_size = 28\nnum_channels = 1\nhidden_sizes = [12, 8]\n",
            spec("digits")
        );
        std::fs::write(made.dir.path().join("base.toml"), recipe).unwrap();
        done(&["train", &made.at("base.toml"), "-o", &made.at("base")]);
        for task in ["digits", "sign_digits"] {
            let (base, spec, out) = (made.at("base"), spec(task), made.at(task));
            done(&[
                "train",
                "--base",
                &base,
                "-t",
                &spec,
                "--steps",
                "20",
                "-L",
                "60",
                "--rate",
                "1e-2",
                "--set",
                "train.validation_limit=10",
                "-o",
                &out,
            ]);
        }
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn at(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }
}

#[test]
fn statistics_of_two_experts_merge_them() {
    let experts = Experts::new();
    let (a, b) = (experts.at("digits"), experts.at("sign_digits"));
    let (digits, signs) = (spec("digits"), spec("sign_digits"));
    let catalogue = ["--catalogue", &*digits, "--catalogue", &*signs];
    let stats = experts.at("stats");
    // Without -t each goes by the task of its own head.
    let ask = [
        &["stats", &*a, &*b, "--rows", "40", "-o", &*stats][..],
        &catalogue,
    ]
    .concat();
    let (plan, _) = done(&[&ask[..], &["--dry-run"]].concat());
    assert!(
        plan.starts_with("plan: gram,fisher of 2 models, at most 40 rows of split train, seed 0\n")
            && plan.contains("on sign_digits, head ")
            && plan.contains("stats/digits.safetensors"),
        "{plan}"
    );
    assert!(!experts.path("stats").exists());
    let (shown, said) = done(&ask);
    assert_eq!(shown.trim(), stats);
    assert!(
        said.contains(
            "40 rows, 2 Gram matrices over 40 positions, Fisher information of 4 tensors"
        ),
        "{said}"
    );
    let of = |name: &str| experts.path("stats").join(format!("{name}.safetensors"));
    let file = Checkpoint::open(of("sign_digits")).unwrap();
    let metadata = file.metadata();
    let told = |key: &str| metadata[key].as_str();
    assert_eq!(
        (told("task"), told("rows"), told("kind"), told("squares")),
        ("sign_digits", "40", "gram,fisher", "per-sample")
    );
    let gram = &values(&of("digits"))["layers.1.weight.gram"];
    assert_eq!(gram.len(), 144);
    assert!((0..12).all(|i| gram[13 * i] >= 0.0 && gram[i] == gram[12 * i]));

    // The same bytes with any number of threads, and none are replaced unasked.
    refused(&ask, "exists already");
    let before = std::fs::read(of("digits")).unwrap();
    done(&[&ask[..], &["--force", "-j", "1"]].concat());
    assert_eq!(std::fs::read(of("digits")).unwrap(), before);
    done(&[&ask[..], &["--force", "-j", "2"]].concat());
    assert_eq!(std::fs::read(of("digits")).unwrap(), before);
    let other = experts.at("other.safetensors");
    let seeded = [
        "stats", &a, "-t", &digits, "--rows", "40", "--seed", "1", "-o", &other,
    ];
    done(&seeded);
    assert_ne!(std::fs::read(&other).unwrap(), before);

    let merge = |method: &str, stats: &str, out: &str| {
        let out = experts.at(out);
        let each = format!("stats={stats}");
        let args = [
            "merge", &a, &b, "--method", method, "--each", &each, "-o", &out,
        ];
        let (_, said) = done(&args);
        (values(&Path::new(&out).join("model.safetensors")), said)
    };
    let (own, swapped) = {
        let (a, b) = (
            of("digits").display().to_string(),
            of("sign_digits").display().to_string(),
        );
        (format!("{a},{b}"), format!("{b},{a}"))
    };
    let inputs = [
        values(&experts.path("digits").join("model.safetensors")),
        values(&experts.path("sign_digits").join("model.safetensors")),
    ];
    let mean = |name: &str| -> Vec<f32> {
        let pairs = inputs[0][name].iter().zip(&inputs[1][name]);
        pairs.map(|(x, y)| (x + y) / 2.0).collect()
    };
    let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
    let (merged, said) = merge("regmean", &own, "regmean");
    assert!(
        !said.contains("warning") && !said.contains("averaged"),
        "{said}"
    );
    assert!(close(&merged["layers.0.bias"], &mean("layers.0.bias")));
    assert!(!close(&merged["layers.1.weight"], &mean("layers.1.weight")));
    let (merged, said) = merge("fisher", &own, "fisher");
    assert!(!said.contains("warning"), "{said}");
    assert!(!close(&merged["layers.1.weight"], &mean("layers.1.weight")));
    // Statistics of the wrong expert are told.
    let (_, said) = merge("regmean", &swapped, "swapped");
    assert!(
        said.contains("were collected on other weights than those of `digits`"),
        "{said}"
    );
    // What lacks Fisher information is refused, and says how to get it.
    let gram = experts.at("gram.safetensors");
    done(&[
        "stats", &a, "-t", &digits, "--kind", "gram", "--rows", "5", "-o", &gram,
    ]);
    let each = format!("stats={gram},{gram}");
    let out = experts.at("refused");
    refused(
        &[
            "merge", &a, &b, "--method", "fisher", "--each", &each, "-o", &out,
        ],
        "polyloom stats MODEL -t TASK --kind fisher",
    );
}

#[test]
fn statistics_through_merged_blocks_belong_to_their_merge() {
    let experts = Experts::new();
    let (a, b, out) = (
        experts.at("digits"),
        experts.at("sign_digits"),
        experts.at("s"),
    );
    let tasks = format!("{},{}", spec("digits"), spec("sign_digits"));
    let ask = [
        "stats",
        &a,
        &b,
        "-t",
        &tasks,
        "--rows",
        "30",
        "--through-merged",
        "-o",
        &out,
    ];
    refused(&[&ask[..], &["--kind", "fisher"]].concat(), "Gram matrices");
    done(&ask);
    let file = |name: &str| experts.path("s").join(format!("{name}.safetensors"));
    let before = std::fs::read(file("digits")).unwrap();
    let metadata = Checkpoint::open(file("digits")).unwrap().metadata().clone();
    let said = |key: &str| metadata[key].as_str();
    assert_eq!(
        (
            said("kind"),
            said("inputs"),
            said("off_diagonal"),
            said("models")
        ),
        ("gram", "through-merged", "0.95", "2")
    );
    done(&[&ask[..], &["--force", "-j", "1"]].concat());
    assert_eq!(std::fs::read(file("digits")).unwrap(), before);
    let plain = experts.at("plain");
    done(&[
        "stats", &a, &b, "-t", &tasks, "--rows", "30", "--kind", "gram", "-o", &plain,
    ]);
    let plain = values(&experts.path("plain/digits.safetensors"));
    let found = values(&file("digits"));
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        plain.keys().collect::<Vec<_>>()
    );
    assert_eq!(found["layers.0.weight.gram"], plain["layers.0.weight.gram"]);
    assert_ne!(found["layers.1.weight.gram"], plain["layers.1.weight.gram"]);
    let each = format!(
        "stats={},{}",
        file("digits").display(),
        file("sign_digits").display()
    );
    let merged = experts.at("merged");
    let (_, told) = done(&[
        "merge",
        &a,
        &b,
        "--method",
        "regmean",
        "--shared",
        "off_diagonal=0.95",
        "--each",
        &each,
        "-o",
        &merged,
    ]);
    assert!(!told.contains("warning"), "{told}");
}

#[test]
fn what_cannot_be_collected_is_told() {
    let experts = Experts::new();
    let (a, b, out) = (
        experts.at("digits"),
        experts.at("sign_digits"),
        experts.at("s"),
    );
    let (digits, signs) = (spec("digits"), spec("sign_digits"));
    refused(
        &["stats", &a, "-t", &signs, "-o", &out],
        "has no head for `sign_digits`",
    );
    refused(
        &["stats", &a, "-t", &signs, "-o", &out],
        "--kind gram needs no head",
    );
    done(&[
        "stats", &a, "-t", &signs, "-o", &out, "--kind", "gram", "--rows", "3",
    ]);
    assert!(experts.path("s/digits.safetensors").exists());
    refused(
        &[
            "stats",
            &a,
            "-t",
            &digits,
            "--split",
            "none",
            "-o",
            &experts.at("x"),
        ],
        "none",
    );
    refused(
        &[
            "stats",
            &a,
            &b,
            &b,
            "-t",
            &format!("{digits},{signs}"),
            "-o",
            &experts.at("x"),
        ],
        "2 tasks for 3 models",
    );
    refused(
        &[
            "stats",
            &a,
            &b,
            "-t",
            &digits,
            "-o",
            &experts.at("x.safetensors"),
        ],
        "there are several models",
    );
    assert!(!experts.path("x").exists());
}

/// Texts of different lengths share batches: what fills them up is no row.
#[test]
fn filling_does_not_count() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let model = root.join("models/all-MiniLM-L6-v2");
    if !model.exists() {
        println!("skipped: no ../shared/models");
        return;
    }
    let (dir, model) = (tempfile::tempdir().unwrap(), model.display().to_string());
    let mut rows = String::from("id,text,label\n");
    for i in 0..12 {
        rows += &format!("{i},{}good,{}\n", "very ".repeat(3 * i), ["a", "b"][i % 2]);
    }
    std::fs::write(dir.path().join("rows.csv"), rows).unwrap();
    let spec = dir.path().join("words.task.toml");
    std::fs::write(
        &spec,
        "schema = \"polyloom.task/1\"\nid = \"words\"\ntype = \"classification\"\n[source]\nkind = \"csv\"\nroot = \".\"\n\
         [splits]\ntrain = { file = \"rows.csv\" }\n[fields]\nid = \"id\"\ninput = \"text\"\ntarget = \"label\"\n\
         [labels]\nnames = [\"a\", \"b\"]\n[[metrics]]\nname = \"accuracy\"\nprimary = true\n",
    )
    .unwrap();
    let of = |batch: &str| {
        let file = dir.path().join(format!("{batch}.safetensors"));
        let (spec, out) = (spec.display().to_string(), file.display().to_string());
        let (_, said) = done(&[
            "stats", &model, "-t", &spec, "--kind", "gram", "--batch", batch, "-o", &out,
        ]);
        (values(&file), said)
    };
    let ((alone, one), (together, all)) = (of("1"), of("12"));
    // "very " thirty-three times at most, "good", and a token at either end.
    let positions = 12 * 3 + 3 * (0..12).sum::<usize>();
    for said in [one, all] {
        assert!(
            said.contains(&format!("over {positions} positions")),
            "{said}"
        );
    }
    for (name, alone) in alone {
        let scale = alone.iter().fold(0f32, |m, x| m.max(x.abs()));
        let together = &together[&name];
        let far = alone.iter().zip(together).map(|(a, b)| (a - b).abs());
        assert!(far.fold(0.0, f32::max) < 1e-4 * scale, "{name}");
    }
}
