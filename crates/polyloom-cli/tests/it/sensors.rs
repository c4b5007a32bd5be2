//! Stems by sensor around one trunk as a user meets them: pictures of two sizes rebuilt without labels, then tasks learned.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{done, failed, polyloom, shown, text};

const NEW: &str = "[train.new]\nmodel_type = \"polyloom-t3\"\nhidden_size = 16\nnum_hidden_layers = 2\nnum_attention_heads = 2\n\
                   intermediate_size = 24\npatch_size = 8\n[train.new.stems.scene]\ntasks = [\"test/scenes\"]\npatch_size = 12\n";

const REBUILD: &str = "objective = \"reconstruct\"\n";

struct Case {
    dir: tempfile::TempDir,
    digits: String,
    scenes: String,
}

impl Case {
    /// Signs of digits of 32 x 32 pixels, and generated scenes of 48 x 48.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spec = "schema = \"polyloom.task/1\"\nid = \"test/scenes\"\nversion = \"1.0\"\n[modality]\ninput = [\"image\"]\n\
                    [source]\nkind = \"synth\"\nsize = [48, 48, 3]\ngenerator = \"shapes\"\nseed = 7\ncount = 400\n\
                    [splits.train]\nslice = \"[:60]\"\n[splits.validation]\nslice = \"[:20]\"\n[splits.test]\nslice = \"[:20]\"\n\
                    [fields]\nid = \"id\"\ninput = \"image\"\n[[targets]]\nname = \"label\"\ncolumn = \"label\"\ntype = \"classification\"\n\
                    labels = [\"dome\", \"box\", \"cone\", \"ramp\", \"half_cylinder\"]\n[[targets.metrics]]\nname = \"accuracy\"\nprimary = true\n";
        let scenes = dir.path().join("scenes.task.toml");
        std::fs::write(&scenes, spec).unwrap();
        let digits = "quickstart/data/sign_digits/task.toml";
        let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join(digits);
        Self {
            digits: shown(&digits.canonicalize().unwrap()),
            scenes: shown(&scenes),
            dir,
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A recipe with more lines of `[train]`, and what it begins with.
    fn recipe(&self, name: &str, more: &str, start: &str) -> String {
        let tasks = [&self.digits, &self.scenes];
        let text = format!(
            "version = 1\nseed = 3\n[train]\ntasks = {tasks:?}\nlimit = 60\nvalidation_limit = 20\nbatch = 8\n\
             mixing = \"alternate\"\nrate = 2e-3\n{more}\n{start}"
        );
        let file = self.at(&format!("{name}.toml"));
        std::fs::write(&file, text).unwrap();
        shown(&file)
    }

    fn json(&self, folder: &str, file: &str) -> Value {
        let read = std::fs::read(self.at(folder).join(file)).unwrap();
        serde_json::from_slice(&read).unwrap()
    }

    /// Names of the tensors of a folder, and the bytes of those that begin with `prefix`.
    fn tensors(&self, folder: &str, prefix: &str) -> (Vec<String>, Vec<u8>) {
        let file = std::fs::read(self.at(folder).join("model.safetensors")).unwrap();
        let (length, rest) = file.split_at(8);
        let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&rest[..length]).unwrap();
        let mut names: Vec<String> = header.as_object().unwrap().keys().cloned().collect();
        names.retain(|n| n.starts_with(prefix) && n != "__metadata__");
        names.sort();
        let of = |name: &String| {
            let at = &header[name]["data_offsets"];
            let [from, to] = [0, 1].map(|i| length + at[i].as_u64().unwrap() as usize);
            rest[from..to].to_vec()
        };
        let bytes = names.iter().flat_map(of).collect();
        (names, bytes)
    }

    /// A coloured picture of a side, as a bitmap of 24 bits.
    fn picture(&self, side: u32) -> String {
        let length = side * side * 3;
        let mut bytes = b"BM".to_vec();
        bytes.extend((54 + length).to_le_bytes());
        for n in [0, 54, 40, side, side] {
            bytes.extend(n.to_le_bytes());
        }
        bytes.extend([1, 0, 24, 0]);
        bytes.extend([0; 24]);
        bytes.extend((0..length).map(|i| (i * 7 % 251) as u8));
        let file = self.at(&format!("{side}.bmp"));
        std::fs::write(&file, bytes).unwrap();
        shown(&file)
    }
}

/// Lines of a folder's log of one type.
fn lines(folder: &Path, kind: &str) -> Vec<Value> {
    let log = std::fs::read_to_string(folder.join("train.jsonl")).unwrap();
    let all = log
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap());
    all.filter(|l| l["type"] == kind).collect()
}

#[test]
fn pictures_are_rebuilt_then_tasks_learned() {
    let case = Case::new();
    let at = |name: &str| shown(&case.at(name));
    let first = case.recipe(
        "first",
        &format!("{REBUILD}steps = 30\nevaluate_every = 15"),
        NEW,
    );
    for (name, threads) in [("one", "1"), ("three", "3")] {
        done(&["train", &first, "--threads", threads, "-o", &at(name)]);
    }
    let read = |name: &str| std::fs::read(case.at(name).join("model.safetensors")).unwrap();
    assert!(read("one") == read("three"));
    let config = case.json("one", "config.json");
    assert_eq!(config["stems"]["scene"]["tasks"][0], "test/scenes");
    assert_eq!(config["stems"]["32x32x3"]["tasks"][0], "sign_digits");
    assert_eq!(config["num_decoder_layers"], 1);
    let (decoders, _) = case.tensors("one", "decoders.32x32x3.");
    assert!(
        decoders.contains(&"decoders.32x32x3.mask_token".to_owned()),
        "{decoders:?}"
    );
    assert!(!case.at("one").join("heads").exists());
    let said = case.json("one", "polyloom.json");
    for task in ["sign_digits", "test/scenes"] {
        assert_eq!(said["scores"]["tasks"][task]["metric"], "masked_mse");
        assert_eq!(said["scores"]["tasks"][task]["n"], 20);
    }
    // Patches are learned at all, and every step is of one sensor.
    let looked = lines(&case.at("one"), "evaluation");
    let of = |line: &Value| line["tasks"]["sign_digits"].as_f64().unwrap();
    assert!(
        looked.len() == 2 && of(&looked[1]) < of(&looked[0]),
        "{looked:?}"
    );
    let steps = lines(&case.at("one"), "step");
    assert!(
        steps
            .iter()
            .all(|s| s["losses"].as_object().unwrap().len() == 1)
    );

    // The second phase: heads on what the first learned, the trunk as it was.
    let base = format!("[base]\npath = {:?}\n", at("one"));
    let second = case.recipe("second", "steps = 20\nfreeze = [\"trunk.\"]", &base);
    for (name, threads) in [("two", "1"), ("two-three", "3")] {
        done(&["train", &second, "--threads", threads, "-o", &at(name)]);
    }
    assert!(read("two") == read("two-three"));
    assert_eq!(case.tensors("two", "trunk."), case.tensors("one", "trunk."));
    assert_ne!(
        case.tensors("two", "stems.").1,
        case.tensors("one", "stems.").1
    );
    assert_eq!(
        case.tensors("two", "decoders."),
        case.tensors("one", "decoders.")
    );
    let results = at("results.json");
    let both = format!("{},{}", case.digits, case.scenes);
    done(&["eval", &at("two"), "-t", &both, "-o", &results]);
    let results: Value = serde_json::from_slice(&std::fs::read(&results).unwrap()).unwrap();
    let value = |task: &str| results["tasks"][task]["value"].as_f64().unwrap();
    assert!(
        (0.0..=1.0).contains(&value("sign_digits"))
            && (0.0..=1.0).contains(&value("test/scenes/label"))
    );

    let told = text(&polyloom(&["inspect", &at("two")]).stdout);
    assert!(
        told.contains("stem `scene`: pictures of 48 x 48 x 3 in patches of 12, of test/scenes"),
        "{told}"
    );
    // Pictures of both sizes at once; alone they say the same.
    let (small, large) = (case.picture(32), case.picture(48));
    let said = |args: &[&str]| {
        let out = polyloom(args);
        assert!(out.status.success(), "{}", text(&out.stderr));
        text(&out.stdout)
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let two = at("two");
    let together = said(&["run", &two, &large, &small]);
    assert_eq!(together.len(), 2);
    assert_eq!(said(&["run", &two, &large])[0], together[0]);
    assert_eq!(said(&["run", &two, &small])[0], together[1]);
    assert_eq!(
        said(&["run", &two, "--task", "sign_digits", "--top", "3", &small]).len(),
        3
    );
    let none = case.picture(28);
    let error = failed(&["run", &two, &none]);
    assert!(
        error.contains("a picture of 28 x 28 x 3, which no stem reads"),
        "{error}"
    );
    let error = failed(&["run", &two, "--task", "sign_digits", &large]);
    assert!(
        error.contains("its stem `32x32x3` reads 32 x 32 x 3"),
        "{error}"
    );
    // A base without a decoder gets one where patches are rebuilt; one without a stem for a task is refused.
    let alone = case.recipe("alone", "steps = 2", NEW);
    done(&["train", &alone, "-t", &case.scenes, "-o", &at("alone")]);
    assert!(case.tensors("alone", "decoders.").0.is_empty());
    let base = format!("[base]\npath = {:?}\n", at("alone"));
    let again = case.recipe("again", &format!("{REBUILD}steps = 2"), &base);
    done(&["train", &again, "-t", &case.scenes, "-o", &at("again")]);
    assert!(!case.tensors("again", "decoders.").0.is_empty());
    let error = failed(&["train", &again, "-o", &at("no")]);
    assert!(
        error.contains("task `sign_digits` has a picture of 32 x 32 x 3, which no stem reads"),
        "{error}"
    );
    // A stem for it, in front of the trunk as it is.
    let stem = "[train.stems.hand]\ntasks = [\"sign_digits\"]\npatch_size = 16\n";
    let start = format!("{base}{stem}");
    let more = case.recipe(
        "more",
        "steps = 2\nfreeze = [\"trunk.\", \"stems.scene.\"]",
        &start,
    );
    done(&["train", &more, "-t", &case.digits, "-o", &at("more")]);
    assert_eq!(
        case.tensors("more", "trunk."),
        case.tensors("alone", "trunk.")
    );
    assert_eq!(
        case.tensors("more", "stems.scene."),
        case.tensors("alone", "stems.scene.")
    );
    assert!(!case.tensors("more", "stems.hand.").0.is_empty());
    let config = case.json("more", "config.json");
    assert_eq!(config["stems"]["hand"]["tasks"][0], "sign_digits");
    let error = failed(&["train", &more, "--method", "lora", "-o", &at("no")]);
    assert!(error.contains("`train.stems` adds stems, which"), "{error}");
    let error = failed(&[
        "train",
        &case.recipe("odd", "", &format!("{NEW}{stem}")),
        "-o",
        &at("no"),
    ]);
    assert!(error.contains("the model is a new one"), "{error}");
}

#[test]
fn a_killed_reconstruction_goes_on_to_the_same_bytes() {
    let case = Case::new();
    let more = format!("{REBUILD}steps = 120\naugment = 1.0\nevaluate_every = 20\nsave_every = 20");
    let recipe = case.recipe("loom", &more, NEW);
    let (whole, cut) = (shown(&case.at("whole")), shown(&case.at("cut")));
    let mut child = Command::new(env!("CARGO_BIN_EXE_polyloom"))
        .args(["train", &recipe, "-o", &cut, "-q", "-j", "1"])
        .spawn()
        .unwrap();
    let checkpoint = case.at("cut.training/checkpoint.safetensors");
    let began = Instant::now();
    while !checkpoint.exists() {
        assert!(began.elapsed() < Duration::from_secs(120), "no checkpoint");
        assert!(
            child.try_wait().unwrap().is_none(),
            "ended before it was killed"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let other = ["--set", "train.reconstruct.mask=0.5"];
    let error = failed(&[&["train", &recipe, "-o", &cut, "--resume"][..], &other].concat());
    assert!(error.contains("checkpoint of another run"), "{error}");
    let said = done(&["train", &recipe, "-o", &cut, "--resume", "-j", "1"]);
    assert!(said.contains("from step "), "{said}");
    done(&["train", &recipe, "-o", &whole, "-j", "1"]);
    assert!(case.tensors("cut", "") == case.tensors("whole", ""));
}

#[test]
fn odd_sensors_are_refused() {
    let case = Case::new();
    let told = |more: &str, start: &str| {
        let recipe = case.recipe("odd", more, start);
        let out = shown(&case.at("no"));
        failed(&["train", &recipe, "-o", &out])
    };
    let new = |from: &str, to: &str| NEW.replace(from, to);
    for (more, start, said) in [
        ("", new("test/scenes", "test/scene"), "names task `test/scene`, which is not learned"),
        (
            "",
            format!("{NEW}[train.new.stems.other]\ntasks = [\"test/scenes\"]\n"),
            "task `test/scenes` is of two sensors, `scene` and `other`",
        ),
        ("", new("\"test/scenes\"", "\"test/scenes\", \"sign_digits\""), "of `sign_digits`"),
        ("", new("patch_size = 12", "patch_size = 11"), "patches of 11 x 11 do not divide pictures of 48 x 48"),
        ("", new("patch_size = 8\n", ""), "says no patch_size"),
        ("", new("hidden_size", "hiden_size"), "unknown field `hiden_size`"),
        ("", format!("num_decoder_layers = 1\n{NEW}"), "unknown field"),
        ("", new("patch_size = 8", "patch_size = 8\nnum_decoder_layers = 1"), "decoders learn by"),
        (REBUILD, new("patch_size = 8", "patch_size = 32"), "of 1 patches"),
        (
            "objective = \"reconstruct\"\nsmoothing = 0.1\n",
            NEW.to_owned(),
            "`train.smoothing` does not go with it",
        ),
        (
            "objective = \"reconstruct\"\nreconstruct = { mask = 0.0 }\n",
            NEW.to_owned(),
            "`train.reconstruct.mask` is 0",
        ),
        (
            "objective = \"reconstruct\"\nreconstruct = { mask = 1.0 }\n",
            NEW.to_owned(),
            "`train.reconstruct.mask` is 1",
        ),
        (
            "objective = \"reconstruct\"\nreconstruct = { mask = 0.01 }\n",
            NEW.to_owned(),
            "masks none of 16 patches",
        ),
        ("reconstruct = { mask = 0.5 }\n", NEW.to_owned(), "is about `objective"),
        (
            REBUILD,
            "[train.new]\nmodel_type = \"vit\"\nimage_size = 28\nnum_channels = 1\npatch_size = 8\nhidden_size = 8\n\
             num_hidden_layers = 1\nnum_attention_heads = 1\nintermediate_size = 8\n"
                .to_owned(),
            "is for models with stems by sensor",
        ),
    ] {
        let error = told(more, &start);
        assert!(error.contains(said), "{said}: {error}");
    }
    // Maps are of models whose pictures have one size.
    let spec = std::fs::read_to_string(&case.scenes).unwrap();
    let depth = spec
        .replace("label", "depth")
        .replace("classification", "dense");
    let cut = depth.split("depths = ").next().unwrap().to_owned();
    let cut = cut + "[[targets.metrics]]\nname = \"abs_err\"\nprimary = true\n";
    std::fs::write(&case.scenes, cut).unwrap();
    let error = told("", NEW);
    assert!(error.contains("vision transformer"), "{error}");
}
