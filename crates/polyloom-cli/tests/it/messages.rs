//! The words of errors that users meet most, as a whole.

use std::path::Path;
use std::process::{Command, Output};

use crate::{letters, polyloom, recipe, text};

fn model(name: &str) -> String {
    let folder = letters().canonicalize().unwrap();
    folder.join(name).display().to_string()
}

/// A copy of an example model with its header changed by `rename`.
fn copy(name: &str, to: &Path, rename: impl Fn(&str) -> String) {
    std::fs::create_dir_all(to).unwrap();
    let from = letters().join(name);
    std::fs::copy(from.join("config.json"), to.join("config.json")).unwrap();
    let bytes = std::fs::read(from.join("model.safetensors")).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let header: serde_json::Map<_, _> = header
        .into_iter()
        .map(|(k, v)| (if k == "__metadata__" { k } else { rename(&k) }, v))
        .collect();
    let header = serde_json::Value::Object(header).to_string();
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(&bytes[8 + length..]);
    std::fs::write(to.join("model.safetensors"), out).unwrap();
}

/// Exit code 2 and this on stderr, with `dir` written as `DIR`.
#[track_caller]
fn says(out: &Output, dir: &Path, want: &str) {
    let models = letters().canonicalize().unwrap();
    let message = text(&out.stderr)
        .replace(&dir.display().to_string(), "DIR")
        .replace(&models.display().to_string(), "MODELS");
    assert_eq!(message, want);
    assert_eq!(out.status.code(), Some(2));
}

#[test]
fn no_base() {
    let dir = tempfile::tempdir().unwrap();
    let (greek, latin) = (model("greek"), model("latin"));
    let args = [
        "merge",
        &greek,
        &latin,
        "--method",
        "task_arithmetic",
        "-o",
        "never",
    ];
    says(
        &polyloom(&args),
        dir.path(),
        "error: merge method `task_arithmetic` works on task vectors and needs a base\n\
         hint: add `[base] path = \"…\"` (`base_model:` in a mergekit file) or pass --base\n",
    );
}

#[test]
fn names_that_differ_by_a_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let expert = dir.path().join("topic");
    copy("greek", &expert, |n| format!("model.{n}"));
    let (base, expert) = (model("base"), expert.display().to_string());
    let args = [
        "merge",
        "--base",
        &base,
        &expert,
        "--method",
        "task_arithmetic",
        "-o",
        "never",
    ];
    let out = polyloom(&args);
    says(
        &out,
        dir.path(),
        "error: DIR/topic/model.safetensors: 102 tensors have no counterpart in base MODELS/base\n  \
         first: model.embeddings.cls_token; base has embeddings.cls_token\n\
         hint: names differ by the prefix `model.`; add `strip_prefix = \"model.\"` to this [[expert]]\n",
    );
}

#[test]
fn a_cut_file() {
    let dir = tempfile::tempdir().unwrap();
    let expert = dir.path().join("topic");
    copy("greek", &expert, str::to_owned);
    let file = expert.join("model.safetensors");
    let full = file.metadata().unwrap().len();
    let handle = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
    handle.set_len(full - 1_000_000).unwrap();
    let (base, expert) = (model("base"), expert.display().to_string());
    let args = [
        "merge",
        "--base",
        &base,
        &expert,
        "--method",
        "task_arithmetic",
        "-o",
        "never",
    ];
    let message = text(&polyloom(&args).stderr).replace(&dir.path().display().to_string(), "DIR");
    let (first, hint) = message.split_once('\n').unwrap();
    assert!(
        first.starts_with("error: DIR/topic/model.safetensors: tensor `")
            && first.ends_with(&format!(
                " by the header, the file has {}",
                full - 1_000_000
            )),
        "{message}"
    );
    assert_eq!(
        hint,
        format!("hint: the download is incomplete; this file should have {full} bytes\n")
    );
}

#[test]
fn dora_without_its_vectors() {
    let dir = tempfile::tempdir().unwrap();
    let adapter = dir.path().join("sentiment");
    let (base, greek, shown) = (model("base"), model("greek"), adapter.display().to_string());
    let out = polyloom(&[
        "adapt", "extract", "--base", &base, "--model", &greek, "--rank", "2", "-o", &shown,
    ]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let config = adapter.join("adapter_config.json");
    let content = std::fs::read_to_string(&config).unwrap();
    let changed = content.replace("\"use_dora\": false", "\"use_dora\": true");
    assert_ne!(changed, content);
    std::fs::write(&config, changed).unwrap();
    says(
        &polyloom(&["adapt", "fold", &shown, "--base", &base, "-o", "never"]),
        dir.path(),
        "error: DIR/sentiment/adapter_config.json: `use_dora` is true, but adapter_model.safetensors holds no `lora_magnitude_vector` tensors\n\
         hint: the adapter was saved incompletely; export it again from the training run\n",
    );
}

#[test]
fn too_little_memory_names_a_thread_count_that_fits() {
    let dir = tempfile::tempdir().unwrap();
    let file = recipe(dir.path(), |t| t);
    let go = |memory: &str| {
        let target = dir.path().join("out").display().to_string();
        polyloom(&[
            "merge",
            &file,
            "-o",
            &target,
            "--threads",
            "8",
            "--memory",
            memory,
        ])
    };
    says(
        &go("1MB"),
        dir.path(),
        "error: merging needs about 67.1 MB of memory with 8 threads; 1.0 MB are allowed (--memory)\n\
         hint: one thread needs about 30.4 MB; --memory SIZE allows a run that is known to fit\n",
    );
    says(
        &go("50MB"),
        dir.path(),
        "error: merging needs about 67.1 MB of memory with 8 threads; 50.0 MB are allowed (--memory)\n\
         hint: --threads 4 needs about 46.1 MB\n",
    );
    assert!(!dir.path().join("out").exists());
    assert!(go("1GB").status.success());
}

#[test]
fn a_key_twice_is_an_error_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let go = |name: &str, content: &str| {
        let file = dir.path().join(name);
        std::fs::write(&file, content).unwrap();
        let out = polyloom(&["merge", &file.display().to_string(), "-o", "never"]);
        assert_eq!(out.status.code(), Some(2), "{name}");
        text(&out.stderr).replace(&dir.path().display().to_string(), "DIR")
    };
    let toml = go(
        "a.toml",
        "version = 1\n[merge]\nmethod = \"ties\"\nmethod = \"slerp\"\n",
    );
    assert!(
        toml.starts_with("error: DIR/a.toml:4:1: is not valid TOML: duplicate key"),
        "{toml}"
    );
    let yaml = go(
        "a.yml",
        "merge_method: linear\nmodels: []\nmerge_method: slerp\n",
    );
    assert!(
        yaml.starts_with("error: DIR/a.yml:3:1: is not valid YAML: "),
        "{yaml}"
    );
    assert!(yaml.contains("merge_method"), "{yaml}");
    let json = go(
        "a.json",
        "{\"merge_method\": \"linear\",\n \"models\": [],\n \"models\": []}\n",
    );
    assert!(
        json.starts_with("error: DIR/a.json:3:2: is not valid YAML: duplicate"),
        "{json}"
    );
}

#[cfg(not(feature = "hub"))]
#[test]
fn a_program_without_the_client_says_how_to_build_one() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().display().to_string();
    let args = [
        "merge",
        "hf:team/a",
        "hf:team/b",
        "--method",
        "linear",
        "-o",
        "never",
        "--download",
        "--cache",
        &cache,
    ];
    let one = |name: &str| {
        format!(
            "error: hf:team/{name}@main: is not in the cache, and this program was built without the download client\n\
             hint: build it with `cargo install --path crates/polyloom-cli --features hub`\n"
        )
    };
    says(&polyloom(&args), dir.path(), &(one("a") + &one("b")));
}

/// A limit on the size of files stands in for a full disk; both end a write in the middle.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_nothing_and_names_output_and_free_space() {
    let dir = tempfile::tempdir().unwrap();
    let file = recipe(dir.path(), |t| t);
    let target = dir.path().join("out");
    // 600 blocks are at most 600 KiB; the output has 1.2 MB. With the signal ignored the write itself fails.
    let out = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 600; exec \"$@\"", "sh"])
        .arg(env!("CARGO_BIN_EXE_polyloom"))
        .args(["merge", &file, "-o", &target.display().to_string()])
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(2));
    let message = text(&out.stderr).replace(&dir.path().display().to_string(), "DIR");
    assert!(
        message.starts_with("error: DIR/out/model.safetensors: cannot write: File too large")
            && message.contains("B are free\nhint: files of this size are not allowed here"),
        "{message}"
    );
    let left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert_eq!(left, ["loom.toml"]);
}

/// A merge of three files of 32 MB each: the program's peak stays below what the plan says, which is below one file.
#[cfg(target_os = "linux")]
#[test]
fn peak_memory_does_not_grow_with_the_model() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["base", "one", "two"] {
        let folder = dir.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        let header =
            "{\"w\":{\"dtype\":\"F32\",\"shape\":[2048,4096],\"data_offsets\":[0,33554432]}}";
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend((0..8_388_608_u32).flat_map(|i| (((i ^ 0x5A) % 1000) as f32).to_le_bytes()));
        std::fs::write(folder.join("model.safetensors"), bytes).unwrap();
    }
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (base, one, two, target) = (path("base"), path("one"), path("two"), path("out"));
    let args = [
        "merge",
        "--base",
        &base,
        &one,
        &two,
        "--method",
        "task_arithmetic",
        "--threads",
        "2",
        "-o",
        &target,
    ];
    let plan = polyloom(&[&args[..], &["--dry-run", "--json"]].concat());
    let plan = text(&plan.stdout);
    let plan: serde_json::Value = plan
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .find(|e: &serde_json::Value| e["type"] == "plan")
        .unwrap();
    let said = plan["peak_bytes"].as_u64().unwrap();
    assert!(said < 64 << 20, "{said}");
    let mut child = Command::new(env!("CARGO_BIN_EXE_polyloom"))
        .args(args)
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // The system keeps the highest mark; the last reading before the end is the answer.
    let (mut peak, mut readings) = (0, 0);
    let status = loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let mark = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        if let Some(kb) = mark.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()) {
            peak = peak.max(kb * 1024);
            readings += 1;
        }
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    };
    assert!(status.success());
    assert!(readings > 2, "{readings}");
    assert!(peak < said, "peak {peak}, the plan says {said}");
}
