//! From missing references to folders in the cache.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use polyloom::plan::reference::Repository;
use polyloom::{MergeError, Result};
use polyloom_core::writer::human;
use serde_json::{Value, json};

use super::choose::{self, Role, Unclear};
use super::client::{About, Ask, Client, header};
use super::settings::Settings;
use super::store::{self, Item};
use crate::ui::Ui;

/// What will be fetched of one repository.
struct Parcel {
    repository: Repository,
    commit: String,
    items: Vec<Item>,
}

/// Fetches all that is wanted into the cache, after saying what and how much. With `dry_run` it only says so.
///
/// # Errors
/// Offline, refused, unreachable, no space, damaged.
pub fn fetch(
    wanted: &BTreeMap<Repository, BTreeSet<Role>>,
    cache: &Path,
    dry_run: bool,
    ui: &Ui,
) -> Result<(), Vec<MergeError>> {
    let settings = Settings::read(|name| std::env::var(name).ok()).map_err(|e| vec![e])?;
    if let Some(name) = settings.offline {
        return Err(wanted
            .keys()
            .map(|repository| {
                MergeError::plan("offline", format!("is not in the cache, and {name} is set"))
                    .at(repository.to_string())
                    .hint(format!(
                        "unset {name}, or copy the model into {}",
                        cache.display()
                    ))
            })
            .collect());
    }
    let client = Client::new(&settings);
    let mut parcels = Vec::new();
    let mut errors = Vec::new();
    for (repository, roles) in wanted {
        match describe(&client, repository, roles) {
            Ok(parcel) => parcels.push(parcel),
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let one = |e: MergeError| vec![e];
    let total = announce(&parcels, &settings, cache, ui);
    store::check_space(cache, total).map_err(one)?;
    if dry_run {
        return Ok(());
    }
    let progress = ui.progress("fetching", total);
    let result = (|| {
        let mut before = 0;
        for parcel in &parcels {
            let folder = parcel.repository.folder(cache);
            for item in &parcel.items {
                let missing = item.missing(&folder);
                let here = item.size - missing;
                // A part that proves wrong is fetched twice; the line does not run backwards.
                let most = Cell::new(0);
                store::fetch(
                    &client,
                    &parcel.repository,
                    &parcel.commit,
                    item,
                    cache,
                    &|now| {
                        most.set(now.saturating_sub(here).max(most.get()));
                        progress.at(before + most.get(), &item.name);
                    },
                )?;
                before += missing;
            }
            store::publish(&parcel.repository, &parcel.commit, &parcel.items, cache)?;
        }
        Ok(())
    })();
    progress.end();
    result.map_err(one)
}

/// Says what comes, from where, to where; returns the bytes.
fn announce(parcels: &[Parcel], settings: &Settings, cache: &Path, ui: &Ui) -> u64 {
    let mut total = 0;
    for parcel in parcels {
        let folder = parcel.repository.folder(cache);
        let sizes = parcel.items.iter().map(|i| (i.size, i.missing(&folder)));
        let (size, missing) = sizes.fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        total += missing;
        let here = if missing < size {
            format!(", {} of them here already", human(size - missing))
        } else {
            String::new()
        };
        ui.say(&format!(
            "fetching {} (commit {}): {} files, {}{here}",
            parcel.repository,
            &parcel.commit[..7],
            parcel.items.len(),
            human(size),
        ));
        ui.event(&json!({
            "type": "fetch",
            "model": parcel.repository.id,
            "revision": parcel.repository.revision,
            "commit": parcel.commit,
            "files": parcel.items.iter().map(|i| &i.name).collect::<Vec<_>>(),
            "bytes": size,
            "missing": missing,
        }));
    }
    ui.say(&format!(
        "  {} from {} to {}",
        human(total),
        settings.endpoint,
        cache.display()
    ));
    total
}

/// Asks the hub what a revision holds and chooses.
fn describe(client: &Client, repository: &Repository, roles: &BTreeSet<Role>) -> Result<Parcel> {
    let about = About {
        repository,
        file: "",
    };
    let odd = |what: &str| {
        MergeError::plan("download-failed", format!("the hub's description {what}"))
            .at(about.place())
            .hint("HF_ENDPOINT must name a Hugging Face hub or a mirror of one")
    };
    let text = client.text(&client.description(repository), &about)?;
    let json: Value = serde_json::from_slice(&text).map_err(|_| odd("is not JSON"))?;
    let commit = json["sha"]
        .as_str()
        .filter(|s| (7..=64).contains(&s.len()) && s.chars().all(|c| c.is_ascii_hexdigit()))
        .ok_or_else(|| odd("names no commit"))?
        .to_owned();
    let mut listed = BTreeMap::new();
    for file in json["siblings"]
        .as_array()
        .ok_or_else(|| odd("lists no files"))?
    {
        let name = file["rfilename"]
            .as_str()
            .ok_or_else(|| odd("lists a file without a name"))?;
        // Names become paths. What is odd is never chosen.
        if choose::is_inside(name) {
            listed.insert(name.to_owned(), file);
        }
    }
    let names: BTreeSet<String> = listed.keys().cloned().collect();
    let mut chosen: Vec<String> = Vec::new();
    for role in roles {
        let shards = |index: &str| shards_of(client, repository, &commit, index);
        let files = choose::weights(&names, *role, shards)?
            .map_err(|unclear| unclear_error(&unclear, &about, client))?;
        for file in files {
            if !names.contains(&file) {
                return Err(MergeError::plan(
                    "download-failed",
                    format!("its index names `{file}`, which the repository does not hold"),
                )
                .at(about.place()));
            }
            if !chosen.contains(&file) {
                chosen.push(file);
            }
        }
    }
    // Small files last: an interrupted run leaves weights to continue with, and a folder without config is no model.
    chosen.extend(names.iter().filter(|n| choose::is_companion(n)).cloned());
    let items = chosen
        .into_iter()
        .map(|name| item(client, repository, &commit, &name, listed[&name]))
        .collect::<Result<_>>()?;
    Ok(Parcel {
        repository: repository.clone(),
        commit,
        items,
    })
}

fn unclear_error(unclear: &Unclear, about: &About<'_>, client: &Client) -> MergeError {
    let page = client.page(about.repository);
    let text = match unclear {
        Unclear::Nothing => "holds no weights that can be read".to_owned(),
        Unclear::Several(suffix, n) => {
            format!("holds {n} `*{suffix}` files and no index that says how they belong together")
        }
    };
    MergeError::plan("download-unclear", text)
        .at(about.place())
        .hint(format!(
            "fetch the file you mean yourself and name it instead: {page}/tree/main"
        ))
}

fn shards_of(
    client: &Client,
    repository: &Repository,
    commit: &str,
    index: &str,
) -> Result<Vec<String>> {
    let about = About {
        repository,
        file: index,
    };
    let text = client.text(&client.file(repository, commit, index), &about)?;
    choose::shards(&text).ok_or_else(|| {
        MergeError::plan("bad-file", "has no `weight_map` from tensors to files").at(about.place())
    })
}

/// Size and content of one file, from the description or else from the file's own headers.
fn item(
    client: &Client,
    repository: &Repository,
    commit: &str,
    name: &str,
    listed: &Value,
) -> Result<Item> {
    let about = About {
        repository,
        file: name,
    };
    let lfs = listed["lfs"]["sha256"].as_str();
    let mut size = listed["lfs"]["size"].as_u64().or(listed["size"].as_u64());
    let mut blob = lfs.or(listed["blobId"].as_str()).map(str::to_owned);
    if size.is_none() || blob.is_none() {
        let answer =
            client.ask_patiently(&client.file(repository, commit, name), Ask::Head, &about)?;
        let linked = header(&answer, "x-linked-etag").or(header(&answer, "etag"));
        blob = linked.map(|tag| tag.trim_start_matches("W/").trim_matches('"').to_owned());
        size = header(&answer, "x-linked-size")
            .or(header(&answer, "content-length"))
            .and_then(|n| n.parse().ok());
    }
    // The content's name becomes a file name.
    let hex = |b: &String| (40..=64).contains(&b.len()) && b.bytes().all(|c| c.is_ascii_hexdigit());
    match (size, blob.filter(hex)) {
        (Some(size), Some(blob)) => Ok(Item {
            name: name.to_owned(),
            size,
            hashed: blob.len() == 64,
            blob: blob.to_ascii_lowercase(),
        }),
        _ => Err(MergeError::plan(
            "download-failed",
            "the server says neither its size nor the hash of its content",
        )
        .at(about.place())
        .hint("HF_ENDPOINT must name a Hugging Face hub or a mirror of one")),
    }
}
