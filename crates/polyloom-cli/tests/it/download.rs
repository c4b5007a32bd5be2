//! `--download` against a hub in miniature.

use std::path::Path;
use std::process::{Command, Output};

use crate::hub_server::{COMMIT, Habit, Hub};
use crate::{letters, text};

/// A hub with the example's models under `team/`.
fn hub(habit: Habit) -> Hub {
    let folder = letters();
    Hub::start(&[
        ("team/base", &folder.join("base"), Habit::Plain),
        ("team/greek", &folder.join("greek"), habit),
        ("team/latin", &folder.join("latin"), Habit::Plain),
    ])
}

fn run(hub: &Hub, home: &Path, args: &[&str], vars: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_polyloom"));
    for name in [
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "HF_TOKEN_PATH",
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "RUST_BACKTRACE",
    ] {
        command.env_remove(name);
    }
    command
        .args(args)
        .env("HF_ENDPOINT", &hub.endpoint)
        .env("HF_HOME", home)
        .env("NO_COLOR", "1")
        .envs(vars.iter().copied())
        .output()
        .expect("the binary starts")
}

/// A merge of the three models by their hub names.
fn merge<'a>(target: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec![
        "merge",
        "--base",
        "hf:team/base",
        "hf:team/greek@v1",
        "hf:team/latin",
        "--method",
        "ties",
        "--each",
        "density=0.4",
        "-o",
        target,
    ];
    args.extend(more);
    args
}

fn convert<'a>(target: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["convert", "hf:team/greek", "-o", target, "--download"];
    args.extend(more);
    args
}

fn weights(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("model.safetensors")).unwrap()
}

#[test]
fn a_merge_by_hub_names_equals_the_local_one_and_fetches_once() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(Habit::Plain);
    let target = dir.path().join("out").display().to_string();
    let home = dir.path().join("home");
    // Without the flag nothing is asked for, and the message names it.
    let out = run(&hub, &home, &merge(&target, &[]), &[]);
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("nothing is fetched unless --download is given"));
    assert!(hub.seen().is_empty(), "{:?}", hub.seen());
    // A dry run says what would come.
    let out = run(
        &hub,
        &home,
        &merge(&target, &["--download", "--dry-run"]),
        &[],
    );
    assert!(out.status.success(), "{}", text(&out.stderr));
    let said = text(&out.stderr);
    assert!(
        said.contains("fetching hf:team/greek@v1 (commit 0123456): 2 files, 2.4 MB\n")
            && said.contains(&format!("7.3 MB from {} to ", hub.endpoint)),
        "{said}"
    );
    assert!(hub.seen().iter().all(|s| s.line.contains("/api/")));
    assert!(!home.exists());

    let out = run(
        &hub,
        &home,
        &merge(&target, &["--download"]),
        &[("HF_TOKEN", "hf_secret")],
    );
    assert!(out.status.success(), "{}", text(&out.stderr));
    let local = dir.path().join("local");
    let folder = letters();
    let name = |n: &str| folder.join(n).display().to_string();
    let out = run(
        &hub,
        &home,
        &[
            "merge",
            "--base",
            &name("base"),
            &name("greek"),
            &name("latin"),
            "--method",
            "ties",
            "--each",
            "density=0.4",
            "-o",
            &local.display().to_string(),
        ],
        &[],
    );
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert_eq!(weights(Path::new(&target)), weights(&local));

    // The token stayed with the hub.
    let seen = hub.seen();
    let store: Vec<_> = seen.iter().filter(|s| s.at == "store").collect();
    assert_eq!(store.len(), 3, "one request per large file");
    assert!(
        store
            .iter()
            .all(|s| !s.headers.contains_key("authorization"))
    );
    let resolved = |s: &&crate::hub_server::Seen| s.at == "hub" && s.line.contains("/resolve/");
    assert!(
        seen.iter()
            .filter(resolved)
            .all(|s| s.headers["authorization"] == "Bearer hf_secret")
    );

    // The layout is the one of huggingface_hub.
    let model = home.join("hub/models--team--greek");
    assert_eq!(
        std::fs::read_to_string(model.join("refs/v1")).unwrap(),
        COMMIT
    );
    let link = model
        .join("snapshots")
        .join(COMMIT)
        .join("model.safetensors");
    let hash = polyloom_core::hash::sha256_file(&folder.join("greek/model.safetensors")).unwrap();
    #[cfg(unix)]
    assert_eq!(
        std::fs::read_link(&link).unwrap(),
        Path::new("../../blobs").join(&hash)
    );
    assert!(model.join("blobs").join(hash).exists() && link.exists());

    // Now it is here: neither the flag nor the hub is needed.
    let before = hub.seen().len();
    for more in [&["--force"][..], &["--force", "--download"]] {
        let out = run(
            &hub,
            &home,
            &merge(&target, more),
            &[("HF_HUB_OFFLINE", "1")],
        );
        assert!(out.status.success(), "{}", text(&out.stderr));
    }
    assert_eq!(hub.seen().len(), before);
}

#[test]
fn a_cut_transfer_goes_on_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(Habit::Cuts);
    let target = dir.path().join("out").display().to_string();
    let out = run(&hub, dir.path(), &convert(&target, &[]), &[]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let size = weights(&letters().join("greek")).len();
    let ranges: Vec<_> = hub
        .seen()
        .into_iter()
        .filter(|s| s.at == "store")
        .map(|s| s.headers.get("range").cloned())
        .collect();
    assert_eq!(ranges, [None, Some(format!("bytes={}-", size / 3))]);
}

#[test]
fn a_later_run_continues_the_part_of_an_earlier_one() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(Habit::Plain);
    let target = dir.path().join("out").display().to_string();
    let file = letters().join("greek/model.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    let blobs = dir.path().join("hub/models--team--greek/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    let part = blobs.join(format!(
        "{}.incomplete",
        polyloom_core::hash::sha256_file(&file).unwrap()
    ));
    std::fs::write(&part, &bytes[..1_000_000]).unwrap();
    let out = run(&hub, dir.path(), &convert(&target, &[]), &[]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(text(&out.stderr).contains("1.0 MB of them here already"));
    let ranges = |hub: &Hub| -> Vec<Option<String>> {
        let seen = hub.seen().into_iter().filter(|s| s.at == "store");
        seen.map(|s| s.headers.get("range").cloned()).collect()
    };
    assert_eq!(ranges(&hub), [Some("bytes=1000000-".to_owned())]);
    assert!(!part.exists());
    // A part with other bytes in it is found out by the hash and fetched anew.
    std::fs::remove_dir_all(dir.path().join("hub")).unwrap();
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(&part, vec![7; 1_000_000]).unwrap();
    let out = run(&hub, dir.path(), &convert(&target, &["--force"]), &[]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert_eq!(ranges(&hub)[1..], [Some("bytes=1000000-".to_owned()), None]);
}

#[test]
fn a_server_that_always_cuts_is_given_up_and_nothing_counts_as_here() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(Habit::CutsAlways);
    let target = dir.path().join("out").display().to_string();
    let out = run(&hub, dir.path(), &convert(&target, &[]), &[]);
    assert_eq!(out.status.code(), Some(2));
    let message = text(&out.stderr);
    assert!(
        message.contains("error: hf:team/greek@main: model.safetensors: cannot be fetched from")
            && message.contains("of 2.4 MB are here)")
            && message.contains("hint: check the connection"),
        "{message}"
    );
    let model = dir.path().join("hub/models--team--greek");
    assert!(!model.join("snapshots").exists() && !model.join("refs").exists());
    assert!(!Path::new(&target).exists());
}

#[test]
fn a_gated_model_names_the_token_and_comes_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(Habit::Gated);
    let target = dir.path().join("out").display().to_string();
    let out = run(&hub, dir.path(), &convert(&target, &[]), &[]);
    assert_eq!(out.status.code(), Some(2));
    let message = text(&out.stderr).replace(&hub.endpoint, "HUB");
    assert!(
        message.contains(
            "error: hf:team/greek@main: model.safetensors: model `team/greek` is gated (the hub answers 403 Forbidden); no token was sent\n\
             hint: accept its terms at HUB/team/greek and set HF_TOKEN to a token of that account\n"
        ),
        "{message}"
    );
    let out = run(
        &hub,
        dir.path(),
        &convert(&target, &[]),
        &[("HF_TOKEN", "hf_bad")],
    );
    assert!(
        text(&out.stderr).contains("gives no access"),
        "{}",
        text(&out.stderr)
    );
    // The token of a login.
    std::fs::write(dir.path().join("token"), "hf_good\n").unwrap();
    let out = run(&hub, dir.path(), &convert(&target, &[]), &[]);
    assert!(out.status.success(), "{}", text(&out.stderr));
}

#[test]
fn a_wrong_hash_is_refused_and_thrown_away() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(Habit::Wrong);
    let target = dir.path().join("out").display().to_string();
    let out = run(&hub, dir.path(), &convert(&target, &["--json"]), &[]);
    assert_eq!(out.status.code(), Some(2));
    let last: serde_json::Value =
        serde_json::from_str(text(&out.stdout).lines().last().unwrap()).unwrap();
    assert_eq!(last["code"], "hash-mismatch", "{last}");
    assert_eq!(last["file"], "hf:team/greek@main: model.safetensors");
    let blobs = dir.path().join("hub/models--team--greek/blobs");
    assert_eq!(std::fs::read_dir(blobs).unwrap().count(), 0);
}

#[test]
fn sizes_that_the_description_lacks_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(Habit::Terse);
    let target = dir.path().join("out").display().to_string();
    let out = run(&hub, dir.path(), &convert(&target, &[]), &[]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(hub.seen().iter().any(|s| s.line.starts_with("HEAD ")));
    let out = run(
        &hub,
        dir.path(),
        &["inspect", "team/base", "--download"],
        &[],
    );
    assert!(
        out.status.success() && text(&out.stdout).contains("team/base"),
        "{}",
        text(&out.stderr)
    );
}

#[test]
fn what_is_not_there_and_being_offline_are_said() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(Habit::Plain);
    let target = dir.path().join("out").display().to_string();
    let go = |model: &str, vars: &[(&str, &str)]| {
        let out = run(
            &hub,
            dir.path(),
            &["convert", model, "-o", &target, "--download"],
            vars,
        );
        assert_eq!(out.status.code(), Some(2));
        text(&out.stderr).replace(&hub.endpoint, "HUB")
    };
    assert_eq!(
        go("hf:team/nobody", &[]),
        "error: hf:team/nobody@main: there is no model `team/nobody` at HUB, or it is private\n\
         hint: check the name; for a private model set HF_TOKEN (no token was sent)\n"
    );
    assert_eq!(
        go("hf:team/greek@v9", &[]),
        "error: hf:team/greek@v9: model `team/greek` has no revision `v9`\n\
         hint: branches and tags: HUB/team/greek/tree/main\n"
    );
    let offline = go("hf:team/greek", &[("HF_HUB_OFFLINE", "1")]);
    assert!(
        offline.starts_with(
            "error: hf:team/greek@main: is not in the cache, and HF_HUB_OFFLINE is set\n\
             hint: unset HF_HUB_OFFLINE, or copy the model into "
        ),
        "{offline}"
    );
    // A port that nobody listens on.
    let gone = go("hf:team/greek", &[("HF_ENDPOINT", "http://127.0.0.1:9")]);
    assert!(
        gone.contains("error: hf:team/greek@main: cannot be fetched from http://127.0.0.1:9: "),
        "{gone}"
    );
}

#[test]
fn names_that_lead_outside_are_never_written() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("a/b/c/d");
    let hub = hub(Habit::Hostile);
    let target = dir.path().join("out").display().to_string();
    let out = run(&hub, &home, &convert(&target, &[]), &[]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(hub.seen().iter().all(|s| !s.line.contains("escaped")));
}

#[test]
fn a_snapshot_without_its_weights_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(Habit::Plain);
    let target = dir.path().join("out").display().to_string();
    // As other tools leave it after they have read the configuration only.
    let model = dir.path().join("hub/models--team--greek");
    let snapshot = model.join("snapshots").join(COMMIT);
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(model.join("refs")).unwrap();
    std::fs::write(model.join("refs/main"), COMMIT).unwrap();
    std::fs::copy(
        letters().join("greek/config.json"),
        snapshot.join("config.json"),
    )
    .unwrap();
    let out = run(&hub, dir.path(), &convert(&target, &[]), &[]);
    assert!(out.status.success(), "{}", text(&out.stderr));
}

#[test]
fn a_mergekit_file_with_bare_names_and_an_adapter_is_fetched() {
    let dir = tempfile::tempdir().unwrap();
    let adapter = dir.path().join("adapter");
    let folder = letters();
    let name = |n: &str| folder.join(n).display().to_string();
    let hub = hub(Habit::Plain);
    let out = run(
        &hub,
        dir.path(),
        &[
            "adapt",
            "extract",
            "--base",
            &name("base"),
            "--model",
            &name("greek"),
            "--rank",
            "2",
            "-o",
            &adapter.display().to_string(),
        ],
        &[],
    );
    assert!(out.status.success(), "{}", text(&out.stderr));
    let hub = Hub::start(&[
        ("team/base", &folder.join("base"), Habit::Plain),
        ("team/lora", &adapter, Habit::Plain),
    ]);
    let recipe = dir.path().join("recipe.yml");
    std::fs::write(
        &recipe,
        "models:\n  - model: team/base+team/lora\n  - model: team/base\nmerge_method: linear\nparameters:\n  weight: 0.5\n",
    )
    .unwrap();
    let target = dir.path().join("out").display().to_string();
    let file = recipe.display().to_string();
    let out = run(
        &hub,
        dir.path(),
        &["merge", &file, "-o", &target, "--download"],
        &[],
    );
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(dir.path().join("hub/models--team--lora/refs/main").exists());
}
