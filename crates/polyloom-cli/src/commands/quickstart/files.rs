//! What the quickstart brings: data, recipes, a base.

use std::path::Path;

use crate::ui::Failure;

/// A file that says that quickstart made the folder.
pub const MARK: &str = "commands.txt";

type Files = &'static [(&'static str, &'static [u8])];

macro_rules! brought {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("../../../quickstart/", $name)))),*]
    };
}

const DATA: Files = brought![
    "NOTICE.md",
    "LICENSE-Apache-2.0.txt",
    "recipes/base.toml",
    "recipes/experts.toml",
    "recipes/joint.toml",
    "recipes/merge.toml",
    "data/digits/task.toml",
    "data/digits/half.toml",
    "data/digits/train.parquet",
    "data/digits/validation.parquet",
    "data/digits/test.parquet",
    "data/sign_digits/task.toml",
    "data/sign_digits/half.toml",
    "data/sign_digits/train.parquet",
    "data/sign_digits/validation.parquet",
    "data/sign_digits/test.parquet",
    "data/fashion_mnist_900/task.toml",
    "data/fashion_mnist_900/half.toml",
    "data/fashion_mnist_900/train.parquet",
    "data/fashion_mnist_900/validation.parquet",
    "data/fashion_mnist_900/test.parquet",
    "data/omniglot_greek/task.toml",
    "data/omniglot_greek/half.toml",
    "data/omniglot_greek/train.parquet",
    "data/omniglot_greek/validation.parquet",
    "data/omniglot_greek/test.parquet",
    "data/omniglot_latin/task.toml",
    "data/omniglot_latin/half.toml",
    "data/omniglot_latin/train.parquet",
    "data/omniglot_latin/validation.parquet",
    "data/omniglot_latin/test.parquet",
    "data/omniglot_japanese_katakana/task.toml",
    "data/omniglot_japanese_katakana/half.toml",
    "data/omniglot_japanese_katakana/train.parquet",
    "data/omniglot_japanese_katakana/validation.parquet",
    "data/omniglot_japanese_katakana/test.parquet",
    "data/omniglot_korean/task.toml",
    "data/omniglot_korean/half.toml",
    "data/omniglot_korean/train.parquet",
    "data/omniglot_korean/validation.parquet",
    "data/omniglot_korean/test.parquet",
];

const BASE: Files = brought!["base/config.json", "base/model.safetensors"];

/// Writes the files; the base too where it is not to be made.
pub fn unpack(folder: &Path, base: bool) -> Result<(), Failure> {
    const OWN: Files = &[(MARK, b""), ("README.md", README.as_bytes())];
    let base: Files = if base { BASE } else { &[] };
    for (name, bytes) in [OWN, DATA, base].concat() {
        let path = folder.join(name);
        let io = |e| polyloom_core::Error::io(&path, "write", e);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(io)?;
        }
        std::fs::write(&path, bytes).map_err(io)?;
    }
    Ok(())
}

/// The results that are ranked.
pub fn results(merges: &[&str], bundles: &[&str]) -> Vec<String> {
    let names = ["base", "joint", "experts"].iter();
    let names = names.chain(merges).chain(bundles);
    names.map(|n| format!("results/{n}.json")).collect()
}

/// Writes down what was typed.
pub fn commands(done: &[String]) -> Result<(), Failure> {
    let text = format!("{}\n", done.join("\n"));
    std::fs::write(MARK, text).map_err(|e| polyloom_core::Error::io(MARK, "write", e))?;
    Ok(())
}

const README: &str = "\
# A family of tasks, tuned, merged and measured

`polyloom quickstart` made this folder by the commands in `commands.txt`; typed in this folder again (after removing what they
wrote), they write the same bytes.

| folder | what |
|---|---|
| `data/` | seven small tasks of pictures, their specs (`task.toml`), and specs with half of the classes, for the base (`half.toml`); licences in `NOTICE.md` |
| `recipes/` | what was trained and merged: change a number and run it again |
| `base/` | a small vision transformer that has seen half of the classes of every task |
| `experts/<task>/` | the base, tuned on one task below a head that was fitted before and stays |
| `heads/` | these heads |
| `joint/` | the base, tuned on all tasks together: what merging is measured against |
| `merges/<method>/` | one model made of all experts, without training |
| `bundles/`, `restored/` | masks over one shared vector; the model of a task restored from them |
| `results/`, `report.html` | scores of every model on every task, with records of every answer |

`polyloom board results/*.json --expert results/experts.json` prints the board again.
\"Task known\": these models are told which task an input belongs to; merges, base and joint model are one model for all
tasks (with the head of the task that is asked). The test sets have 120 to 250 rows: read the intervals.
";
