//! Files of a repository in the Hugging Face cache: `blobs` by content, `snapshots` by commit, `refs` by name.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use polyloom::plan::reference::Repository;
use polyloom::{MergeError, Result};
use polyloom_core::Error;
use polyloom_core::hash::sha256_file;
use polyloom_core::writer::{free_space, human};

use super::client::{About, Ask, Client, Trouble, header, pause};

/// Failures in a row, without progress, after which a transfer ends.
const TRIES: u32 = 5;
/// Bytes after which a transfer counts as making progress.
const PROGRESS: u64 = 1 << 20;

/// One file to fetch.
#[derive(Debug, Clone)]
pub struct Item {
    /// Name in the repository.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Name of the content: SHA-256 of large files, git's object id of small ones.
    pub blob: String,
    /// True if `blob` is the SHA-256 of the content.
    pub hashed: bool,
}

impl Item {
    /// Bytes that are still to come, given what lies in `folder`.
    pub fn missing(&self, folder: &Path) -> u64 {
        let length = |path: PathBuf| std::fs::metadata(path).map_or(0, |m| m.len());
        if length(folder.join("blobs").join(&self.blob)) == self.size && self.is_here(folder) {
            return 0;
        }
        self.size
            .saturating_sub(length(part_of(&folder.join("blobs").join(&self.blob))))
    }

    fn is_here(&self, folder: &Path) -> bool {
        std::fs::metadata(folder.join("blobs").join(&self.blob))
            .is_ok_and(|m| m.is_file() && m.len() == self.size)
    }
}

fn part_of(blob: &Path) -> PathBuf {
    let mut name = blob.as_os_str().to_owned();
    name.push(".incomplete");
    name.into()
}

/// Fetches one file's content unless it is there. `heard` gets the bytes of this file that are here so far.
///
/// # Errors
/// Refusals, five failures in a row, a wrong size or hash, a full disk. What came so far stays as `.incomplete`,
/// unless it is known to be wrong.
pub fn fetch(
    client: &Client,
    repository: &Repository,
    commit: &str,
    item: &Item,
    cache: &Path,
    heard: &dyn Fn(u64),
) -> Result<()> {
    let folder = repository.folder(cache);
    let blobs = folder.join("blobs");
    make(&blobs)?;
    // The lock that huggingface_hub takes for the same file.
    let locks = cache
        .join(".locks")
        .join(folder.file_name().unwrap_or_default());
    make(&locks)?;
    let lock_path = locks.join(format!("{}.lock", item.blob));
    let lock = open(&lock_path)?;
    lock.lock().map_err(|e| Error::io(&lock_path, "lock", e))?;
    if item.is_here(&folder) {
        heard(item.size);
        return Ok(());
    }
    let about = About {
        repository,
        file: &item.name,
    };
    let blob = blobs.join(&item.blob);
    let part = part_of(&blob);
    let url = client.file(repository, commit, &item.name);
    let continued = std::fs::metadata(&part).is_ok_and(|m| m.len() > 0);
    transfer(client, &url, item, &part, &about, heard)?;
    if let Err(found) = check(item, &part)? {
        std::fs::remove_file(&part).map_err(|e| Error::io(&part, "remove", e))?;
        // An old part may be what is wrong.
        let found = if continued {
            transfer(client, &url, item, &part, &about, heard)?;
            check(item, &part)?
        } else {
            Err(found)
        };
        if let Err(found) = found {
            let _ = std::fs::remove_file(&part);
            return Err(MergeError::plan(
                "hash-mismatch",
                format!("what came has SHA-256 {found}, the hub promises {}", item.blob),
            )
            .at(about.place())
            .hint("run again to fetch it anew; if it stays so, the mirror or proxy in between changes files"));
        }
    }
    std::fs::rename(&part, &blob).map_err(|e| Error::io(&blob, "rename to", e))?;
    Ok(())
}

/// The hash that was found, if it is not the promised one.
fn check(item: &Item, part: &Path) -> Result<Result<(), String>> {
    if !item.hashed {
        return Ok(Ok(()));
    }
    let found = sha256_file(part)?;
    Ok(if found == item.blob {
        Ok(())
    } else {
        Err(found)
    })
}

fn transfer(
    client: &Client,
    url: &str,
    item: &Item,
    part: &Path,
    about: &About<'_>,
    heard: &dyn Fn(u64),
) -> Result<()> {
    let mut file = open(part)?;
    let mut failures = 0;
    let mut counted = 0;
    let mut buffer = vec![0; 1 << 18];
    loop {
        let mut have = file
            .seek(SeekFrom::End(0))
            .map_err(|e| Error::io(part, "read", e))?;
        if have > item.size {
            have = cut(&mut file, part)?;
        }
        heard(have);
        if have == item.size {
            file.sync_all().map_err(|e| written(part, e))?;
            return Ok(());
        }
        let trouble = match client.ask(url, Ask::From(have)) {
            Err(problem) => problem,
            Ok(answer) => {
                if answer.status().as_u16() == 416 {
                    cut(&mut file, part)?;
                }
                match client.judge(answer, about) {
                    Err(Trouble::Final(error)) => return Err(*error),
                    Err(Trouble::Passing(problem)) => problem,
                    Ok(answer) => {
                        let goes_on = header(&answer, "content-range")
                            .is_some_and(|r| r.starts_with(&format!("bytes {have}-")));
                        if have > 0 && !(answer.status().as_u16() == 206 && goes_on) {
                            // The server sends all of it again.
                            have = cut(&mut file, part)?;
                        }
                        let mut reader = answer.into_body().into_reader();
                        let problem = loop {
                            match reader.read(&mut buffer) {
                                Ok(0) => break "the connection ended early".to_owned(),
                                Ok(n) => {
                                    have += n as u64;
                                    if have > item.size {
                                        cut(&mut file, part)?;
                                        return Err(too_long(item, about));
                                    }
                                    file.write_all(&buffer[..n]).map_err(|e| written(part, e))?;
                                    heard(have);
                                    if have == item.size {
                                        break String::new();
                                    }
                                }
                                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                                Err(e) => break e.to_string(),
                            }
                        };
                        if have == item.size {
                            // One more byte would be one too many.
                            if matches!(reader.read(&mut buffer[..1]), Ok(1..)) {
                                cut(&mut file, part)?;
                                return Err(too_long(item, about));
                            }
                            continue;
                        }
                        problem
                    }
                }
            }
        };
        if have >= counted + PROGRESS {
            failures = 0;
            counted = have;
        }
        failures += 1;
        if failures == TRIES {
            return Err(client.unreachable(
                about,
                &format!(
                    "{trouble} ({} of {} are here)",
                    human(have),
                    human(item.size)
                ),
            ));
        }
        pause(failures);
    }
}

fn too_long(item: &Item, about: &About<'_>) -> MergeError {
    MergeError::plan(
        "download-failed",
        format!(
            "more bytes come than the {} that the hub promises",
            item.size
        ),
    )
    .at(about.place())
    .hint("the mirror or proxy in between changes files; try another HF_ENDPOINT")
}

fn cut(file: &mut File, path: &Path) -> Result<u64> {
    file.set_len(0).map_err(|e| Error::io(path, "cut", e))?;
    file.seek(SeekFrom::Start(0))
        .map_err(|e| Error::io(path, "read", e))?;
    Ok(0)
}

fn written(path: &Path, error: std::io::Error) -> MergeError {
    let near = path.parent().unwrap_or(path);
    Error::write(path, "write", error, near).into()
}

fn open(path: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|e| Error::io(path, "create", e))?;
    Ok(file)
}

fn make(folder: &Path) -> Result<()> {
    Ok(std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, "create", e))?)
}

/// Shows fetched contents under their names, then points the revision's name at the commit.
///
/// # Errors
/// The cache cannot be written.
pub fn publish(repository: &Repository, commit: &str, items: &[Item], cache: &Path) -> Result<()> {
    let folder = repository.folder(cache);
    let snapshot = folder.join("snapshots").join(commit);
    // Weights last: a folder with weights counts as complete.
    for item in items.iter().rev() {
        let link = snapshot.join(&item.name);
        if let Some(parent) = link.parent() {
            make(parent)?;
        }
        if std::fs::metadata(&link).is_ok_and(|m| m.len() == item.size) {
            continue;
        }
        if std::fs::symlink_metadata(&link).is_ok() {
            std::fs::remove_file(&link).map_err(|e| Error::io(&link, "remove", e))?;
        }
        show(&folder, item, &link)?;
    }
    if repository.revision != commit {
        let name = folder.join("refs").join(&repository.revision);
        make(name.parent().unwrap_or(&folder))?;
        let fresh = name.with_extension(format!("{}.tmp", std::process::id()));
        std::fs::write(&fresh, commit).map_err(|e| Error::io(&fresh, "write", e))?;
        std::fs::rename(&fresh, &name).map_err(|e| Error::io(&name, "rename to", e))?;
    }
    Ok(())
}

#[cfg(unix)]
fn show(_: &Path, item: &Item, link: &Path) -> Result<()> {
    // Relative, so that the cache can be moved: out of the name's folders, the commit and `snapshots`.
    let depth = item.name.matches('/').count() + 2;
    let target = format!("{}blobs/{}", "../".repeat(depth), item.blob);
    Ok(std::os::unix::fs::symlink(target, link).map_err(|e| Error::io(link, "link", e))?)
}

/// Without links the content itself takes the name, as huggingface_hub does it there.
#[cfg(not(unix))]
fn show(folder: &Path, item: &Item, link: &Path) -> Result<()> {
    let blob = folder.join("blobs").join(&item.blob);
    std::fs::copy(&blob, link).map_err(|e| Error::io(link, "write", e))?;
    Ok(())
}

/// Refuses to start a download that does not fit.
///
/// # Errors
/// Less space is free than is needed.
pub fn check_space(cache: &Path, need: u64) -> Result<()> {
    let standing = cache.ancestors().find(|p| p.is_dir());
    if let Some(free) = standing.and_then(free_space)
        && free < need
    {
        return Err(MergeError::plan(
            "disk-full",
            format!(
                "{} are to be fetched, {} are free",
                human(need),
                human(free)
            ),
        )
        .at(cache.display().to_string())
        .hint("free some space, or name a cache on another disk (HF_HUB_CACHE or --cache)"));
    }
    Ok(())
}
