//! The one writer: safetensors files whose layout is known before the first byte, in a folder that appears whole or
//! not at all.

mod file;

pub use file::OutputFile;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::dtype::DType;
use crate::error::{Error, Result};

/// A tensor to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutTensor {
    /// Name in the output.
    pub name: String,
    /// Type on disk.
    pub dtype: DType,
    /// Shape.
    pub shape: Vec<usize>,
}

impl OutTensor {
    /// Bytes on disk.
    ///
    /// # Panics
    /// If the size overflows `u64` (shapes were checked against files before).
    pub fn bytes(&self) -> u64 {
        let elements = self.shape.iter().product();
        self.dtype
            .bytes_of(elements)
            .expect("shapes of outputs are shapes of inputs that exist")
    }
}

/// Where one tensor goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Index into [`Layout::shards`].
    pub shard: usize,
    /// Byte offset in that file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// One file of the output.
#[derive(Debug, Clone)]
pub struct Shard {
    /// File name.
    pub name: String,
    /// Length prefix and JSON header.
    pub header: Vec<u8>,
    /// Length of the file.
    pub len: u64,
}

/// All files of the output and where every tensor goes.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Files.
    pub shards: Vec<Shard>,
    /// Place of tensor `i`.
    pub places: Vec<Place>,
    /// `NAME.safetensors.index.json`, if there are several shards.
    pub index: Option<(String, Vec<u8>)>,
}

impl Layout {
    /// Lays tensors out in the order given, starting a new file where one would pass `shard_size` bytes (a tensor is
    /// never split). `stem` is `model` or `adapter_model`. Inside a file wider types come first, then names in byte
    /// order, so that every tensor is aligned to its type.
    pub fn new(tensors: &[OutTensor], shard_size: u64, stem: &str) -> Self {
        let metadata = std::collections::BTreeMap::from([("format".into(), "pt".into())]);
        Self::with_metadata(tensors, shard_size, stem, &metadata)
    }

    /// As [`Self::new`], with other header metadata (every file gets it).
    pub fn with_metadata(
        tensors: &[OutTensor],
        shard_size: u64,
        stem: &str,
        metadata: &std::collections::BTreeMap<String, String>,
    ) -> Self {
        let mut groups: Vec<Vec<usize>> = vec![Vec::new()];
        let mut filled = 0u64;
        for (i, tensor) in tensors.iter().enumerate() {
            let bytes = tensor.bytes();
            if filled > 0 && filled + bytes > shard_size {
                groups.push(Vec::new());
                filled = 0;
            }
            filled += bytes;
            groups[..]
                .last_mut()
                .expect("there is always a group")
                .push(i);
        }
        let count = groups.len();
        let mut places = vec![
            Place {
                shard: 0,
                offset: 0,
                bytes: 0
            };
            tensors.len()
        ];
        let mut shards = Vec::new();
        let mut weight_map = std::collections::BTreeMap::new();
        let mut total = 0u64;
        for (s, mut group) in groups.into_iter().enumerate() {
            group.sort_by(|a, b| {
                let width = |i: &usize| std::cmp::Reverse(tensors[*i].dtype.block().1);
                (width(a), &tensors[*a].name).cmp(&(width(b), &tensors[*b].name))
            });
            let name = if count == 1 {
                format!("{stem}.safetensors")
            } else {
                format!("{stem}-{:05}-of-{count:05}.safetensors", s + 1)
            };
            let mut header = serde_json::Map::new();
            header.insert("__metadata__".into(), serde_json::json!(metadata));
            let mut at = 0u64;
            for &i in &group {
                let tensor = &tensors[i];
                let bytes = tensor.bytes();
                places[i] = Place {
                    shard: s,
                    offset: at,
                    bytes,
                };
                header.insert(
                    tensor.name.clone(),
                    serde_json::json!({
                        "dtype": tensor.dtype.name(),
                        "shape": tensor.shape,
                        "data_offsets": [at, at + bytes],
                    }),
                );
                weight_map.insert(tensor.name.clone(), name.clone());
                at += bytes;
            }
            let header = finish_header(&serde_json::Value::Object(header));
            for &i in &group {
                places[i].offset += header.len() as u64;
            }
            total += at;
            shards.push(Shard {
                len: header.len() as u64 + at,
                name,
                header,
            });
        }
        let index = (count > 1).then(|| {
            let json =
                serde_json::json!({"metadata": {"total_size": total}, "weight_map": weight_map});
            let mut text = serde_json::to_vec_pretty(&json).unwrap_or_default();
            text.push(b'\n');
            (format!("{stem}.safetensors.index.json"), text)
        });
        Self {
            shards,
            places,
            index,
        }
    }

    /// Bytes of all files.
    pub fn total(&self) -> u64 {
        self.shards.iter().map(|s| s.len).sum()
    }
}

/// Length prefix + JSON, padded with spaces to a multiple of eight.
fn finish_header(json: &serde_json::Value) -> Vec<u8> {
    let mut text = serde_json::to_vec(json).unwrap_or_default();
    while !text.len().is_multiple_of(8) {
        text.push(b' ');
    }
    let mut out = (text.len() as u64).to_le_bytes().to_vec();
    out.extend(text);
    out
}

/// A small safetensors file from tensors in memory, with header metadata (heads, masks, adapters, statistics).
pub fn safetensors_bytes(
    tensors: &[(OutTensor, Vec<u8>)],
    metadata: &std::collections::BTreeMap<String, String>,
) -> Vec<u8> {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by(|a, b| {
        let key = |i: usize| {
            (
                std::cmp::Reverse(tensors[i].0.dtype.block().1),
                &tensors[i].0.name,
            )
        };
        key(*a).cmp(&key(*b))
    });
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".into(), serde_json::json!(metadata));
    }
    let mut at = 0;
    for &i in &order {
        let (tensor, bytes) = &tensors[i];
        header.insert(
            tensor.name.clone(),
            serde_json::json!({"dtype": tensor.dtype.name(), "shape": tensor.shape, "data_offsets": [at, at + bytes.len()]}),
        );
        at += bytes.len();
    }
    let mut out = finish_header(&serde_json::Value::Object(header));
    for &i in &order {
        out.extend_from_slice(&tensors[i].1);
    }
    out
}

/// How an output folder comes into being.
#[derive(Debug, Clone, Default)]
pub struct FolderOptions {
    /// Replace an existing folder.
    pub force: bool,
    /// Skip fsync: complete for other programs at once, not yet safe against a power cut.
    pub no_sync: bool,
    /// Keep finished shards of an interrupted run with the same fingerprint.
    pub resume: bool,
    /// What the run will write, as text; two runs with equal fingerprints write the same bytes.
    pub fingerprint: String,
    /// Bytes the run will write, checked against the free space before the first one.
    pub bytes: u64,
}

/// A folder under construction: files go to a hidden sibling, [`Self::commit`] renames it.
#[derive(Debug)]
pub struct OutputFolder {
    target: PathBuf,
    temp: PathBuf,
    options: FolderOptions,
    // Held while the run lasts; the system releases it even after kill -9.
    lock: Option<File>,
    committed: bool,
}

const RESUME: &str = ".polyloom-resume";
const LOCK: &str = ".polyloom-lock";

impl OutputFolder {
    /// Prepares the folder beside `target`.
    pub fn create(target: impl AsRef<Path>, options: FolderOptions) -> Result<Self> {
        let target = target.as_ref().to_owned();
        let name = target
            .file_name()
            .and_then(|n| n.to_str())
            .ok_or_else(|| Error::format(&target, "is not a name for an output folder"))?;
        let parent = match target.parent() {
            Some(p) if !p.as_os_str().is_empty() => p.to_owned(),
            _ => PathBuf::from("."),
        };
        if target.exists() && !options.force {
            return Err(Error::format(&target, "exists already")
                .with_hint("choose another name or pass --force to replace it"));
        }
        if options.force && target.is_file() {
            return Err(Error::format(
                &target,
                "is a file; only a folder is replaced",
            ));
        }
        fs::create_dir_all(&parent).map_err(|e| Error::io(&parent, "create", e))?;
        let temp = parent.join(format!(".{name}.polyloom-partial"));
        fs::create_dir_all(&temp).map_err(|e| Error::io(&temp, "create", e))?;
        let lock_path = temp.join(LOCK);
        let lock = File::create(&lock_path).map_err(|e| Error::io(&lock_path, "create", e))?;
        if let Err(fs::TryLockError::WouldBlock) = lock.try_lock() {
            return Err(Error::format(&target, "is being written by another run")
                .with_hint("wait for it to end, or choose another name"));
        }
        let keep = options.resume
            && fs::read_to_string(temp.join(RESUME)).is_ok_and(|f| f == options.fingerprint);
        for entry in fs::read_dir(&temp)
            .map_err(|e| Error::io(&temp, "read", e))?
            .flatten()
        {
            let path = entry.path();
            let name = entry.file_name();
            let finished = keep && name.to_str().is_some_and(|n| n.ends_with(".safetensors"));
            if name != LOCK && !finished {
                let gone = if path.is_dir() {
                    fs::remove_dir_all(&path)
                } else {
                    fs::remove_file(&path)
                };
                gone.map_err(|e| Error::io(&path, "remove", e))?;
            }
        }
        let folder = Self {
            target,
            temp,
            options,
            lock: Some(lock),
            committed: false,
        };
        folder.check_space(&parent)?;
        folder.write_file(RESUME, folder.options.fingerprint.as_bytes())?;
        Ok(folder)
    }

    fn check_space(&self, parent: &Path) -> Result<()> {
        let kept: u64 = fs::read_dir(&self.temp)
            .map(|d| {
                d.flatten()
                    .filter_map(|e| e.metadata().ok())
                    .map(|m| m.len())
                    .sum()
            })
            .unwrap_or(0);
        let need = self.options.bytes.saturating_sub(kept);
        if let Some(free) = free_space(parent)
            && free < need
        {
            let _ = fs::remove_dir_all(&self.temp);
            return Err(Error::format(
                &self.target,
                format!(
                    "needs {} of disk space, {} are free",
                    human(need),
                    human(free)
                ),
            )
            .with_hint("free some space, write elsewhere, or choose a smaller --dtype"));
        }
        Ok(())
    }

    /// The folder that is being filled.
    pub fn path(&self) -> &Path {
        &self.temp
    }

    /// The folder that will exist.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Whether fsync is skipped.
    pub fn synced(&self) -> bool {
        !self.options.no_sync
    }

    /// Writes a small file (sub-folders in `name` are created).
    pub fn write_file(&self, name: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
        let path = self.temp.join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|e| Error::io(folder, "create", e))?;
        }
        let mut file = File::create(&path).map_err(|e| self.named(&path, "create", e))?;
        file.write_all(bytes)
            .map_err(|e| self.named(&path, "write", e))?;
        if self.synced() {
            file.sync_all().map_err(|e| self.named(&path, "write", e))?;
        }
        Ok(())
    }

    /// Copies a small file from an input folder.
    pub fn copy_file(&self, from: &Path, name: impl AsRef<Path>) -> Result<()> {
        let bytes = fs::read(from).map_err(|e| Error::io(from, "read", e))?;
        self.write_file(name, &bytes)
    }

    /// An error that names the final place, not the hidden one.
    fn named(&self, path: &Path, action: &'static str, source: std::io::Error) -> Error {
        let shown = path
            .strip_prefix(&self.temp)
            .map_or_else(|_| path.to_owned(), |p| self.target.join(p));
        Error::write(shown, action, source, &self.temp)
    }

    /// Makes the folder appear under its name, all at once.
    pub fn commit(mut self) -> Result<PathBuf> {
        for name in [RESUME, LOCK] {
            let path = self.temp.join(name);
            if path.exists() {
                fs::remove_file(&path).map_err(|e| Error::io(&path, "remove", e))?;
            }
        }
        if self.synced() {
            sync_folder(&self.temp)?;
        }
        if self.target.exists() {
            let old = self.temp.with_extension("polyloom-old");
            let _ = fs::remove_dir_all(&old);
            exchange(&self.temp, &self.target, &old)
                .map_err(|e| Error::io(&self.target, "replace", e))?;
            let _ = fs::remove_dir_all(&old);
            let _ = fs::remove_dir_all(&self.temp);
        } else {
            fs::rename(&self.temp, &self.target)
                .map_err(|e| Error::io(&self.target, "create", e))?;
        }
        self.committed = true;
        self.lock = None;
        if self.synced()
            && let Some(parent) = self.target.parent().filter(|p| !p.as_os_str().is_empty())
        {
            sync_folder(parent)?;
        }
        Ok(self.target.clone())
    }

    /// Keeps what was written, for `--resume` (after an interrupt); without this a failed run cleans up.
    pub fn keep_partial(mut self) {
        self.committed = true;
    }
}

impl Drop for OutputFolder {
    fn drop(&mut self) {
        if !self.committed {
            let _ = fs::remove_dir_all(&self.temp);
        }
    }
}

#[cfg(target_os = "linux")]
fn exchange(new: &Path, target: &Path, old: &Path) -> std::io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    // One atomic step where the file system can; afterwards `new` holds the old folder.
    match renameat_with(CWD, new, CWD, target, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        Err(_) => fs::rename(target, old).and_then(|()| fs::rename(new, target)),
    }
}

#[cfg(not(target_os = "linux"))]
fn exchange(new: &Path, target: &Path, old: &Path) -> std::io::Result<()> {
    fs::rename(target, old).and_then(|()| fs::rename(new, target))
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|f| f.sync_all())
        .map_err(|e| Error::io(path, "write", e))
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> Result<()> {
    Ok(())
}

/// Free bytes for an ordinary user on the file system of `path`; `None` where the system does not say.
pub fn free_space(path: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let stat = rustix::fs::statvfs(path).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

/// Bytes in words: `4.4 GB`.
pub fn human(bytes: u64) -> String {
    let b = bytes as f64;
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", b / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", b / 1e6),
        _ => format!("{:.2} GB", b / 1e9),
    }
}

/// One shard being written.
#[derive(Debug)]
struct OpenShard {
    file: Option<File>,
    part: PathBuf,
    finished: PathBuf,
    left: AtomicU64,
}

/// Writes tensors at their places, from any thread, in any order.
#[derive(Debug)]
pub struct TensorWriter {
    shards: Vec<Arc<OpenShard>>,
    places: Vec<Place>,
    shown: PathBuf,
    temp: PathBuf,
    sync: bool,
    flusher: Option<Flusher>,
}

/// Starts write-back early, so that the fsync at the end finds little to do.
#[derive(Debug)]
struct Flusher {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

const FLUSH_EVERY: u64 = 64 << 20;

impl TensorWriter {
    /// Opens the shards inside `folder`. Shards that an earlier run finished are skipped: see [`Self::finished`].
    pub fn create(folder: &OutputFolder, layout: &Layout) -> Result<Self> {
        let mut shards = Vec::new();
        for shard in &layout.shards {
            let finished = folder.temp.join(&shard.name);
            let part = folder.temp.join(format!("{}.part", shard.name));
            let done = fs::metadata(&finished).is_ok_and(|m| m.len() == shard.len);
            let file = if done {
                None
            } else {
                if let Some(parent) = part.parent() {
                    fs::create_dir_all(parent).map_err(|e| folder.named(parent, "create", e))?;
                }
                let file = File::create(&part).map_err(|e| folder.named(&part, "create", e))?;
                file.set_len(shard.len)
                    .map_err(|e| folder.named(&finished, "write", e))?;
                write_all_at(&file, 0, &shard.header)
                    .map_err(|e| folder.named(&finished, "write", e))?;
                Some(file)
            };
            let left = AtomicU64::new(shard.len - shard.header.len() as u64);
            let open = OpenShard {
                file,
                part,
                finished,
                left,
            };
            if open.file.is_some() && open.left.load(Ordering::Relaxed) == 0 {
                finish_shard(&open, folder.synced())
                    .map_err(|e| folder.named(&open.finished, "write", e))?;
            }
            shards.push(Arc::new(open));
        }
        let flusher = folder.synced().then(|| Flusher::start(shards.clone()));
        Ok(Self {
            shards,
            places: layout.places.clone(),
            shown: folder.target.clone(),
            temp: folder.temp.clone(),
            sync: folder.synced(),
            flusher,
        })
    }

    /// True if tensor `i` lies in a shard that an earlier run finished; it must not be written again.
    pub fn finished(&self, i: usize) -> bool {
        self.shards[self.places[i].shard].file.is_none()
    }

    /// Writes `bytes` of tensor `i` from byte `at` of the tensor on. Every byte must be written exactly once.
    pub fn write(&self, i: usize, at: u64, bytes: &[u8]) -> Result<()> {
        let place = self.places[i];
        assert!(
            at + bytes.len() as u64 <= place.bytes,
            "write past the end of a tensor"
        );
        let shard = &self.shards[place.shard];
        let Some(file) = &shard.file else {
            return Ok(());
        };
        let result = write_all_at(file, place.offset + at, bytes).and_then(|()| {
            let n = bytes.len() as u64;
            if let Some(flusher) = &self.flusher {
                flusher.written.fetch_add(n, Ordering::Relaxed);
            }
            if n > 0 && shard.left.fetch_sub(n, Ordering::AcqRel) == n {
                finish_shard(shard, self.sync)?;
            }
            Ok(())
        });
        result.map_err(|e| self.named(&shard.finished, e))
    }

    fn named(&self, path: &Path, source: std::io::Error) -> Error {
        let shown = path
            .strip_prefix(&self.temp)
            .map_or_else(|_| path.to_owned(), |p| self.shown.join(p));
        Error::write(shown, "write", source, &self.temp)
    }

    /// Checks that every byte was written.
    pub fn close(mut self) -> Result<()> {
        drop(self.flusher.take());
        for shard in &self.shards {
            let left = shard.left.load(Ordering::Acquire);
            if shard.file.is_some() && left != 0 {
                return Err(Error::format(
                    &shard.finished,
                    format!("{left} bytes were never written; this is a bug"),
                ));
            }
        }
        Ok(())
    }
}

fn finish_shard(shard: &OpenShard, sync: bool) -> std::io::Result<()> {
    if sync && let Some(file) = &shard.file {
        file.sync_all()?;
    }
    fs::rename(&shard.part, &shard.finished)
}

impl Flusher {
    fn start(shards: Vec<Arc<OpenShard>>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(0));
        let (stopped, total) = (stop.clone(), written.clone());
        let thread = std::thread::spawn(move || {
            let mut last = 0;
            while !stopped.load(Ordering::Relaxed) {
                std::thread::park_timeout(std::time::Duration::from_millis(20));
                let now = total.load(Ordering::Relaxed);
                if now - last >= FLUSH_EVERY {
                    last = now;
                    for shard in &shards {
                        if let Some(file) = &shard.file
                            && shard.left.load(Ordering::Relaxed) > 0
                        {
                            // Only a head start: the error, if any, comes again from the final sync.
                            let _ = file.sync_data();
                        }
                    }
                }
            }
        });
        Self {
            stop,
            written,
            thread: Some(thread),
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

#[cfg(unix)]
fn write_all_at(file: &File, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn write_all_at(file: &File, mut offset: u64, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
        offset += n as u64;
        bytes = &bytes[n..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Checkpoint;

    fn tensors() -> Vec<OutTensor> {
        vec![
            OutTensor {
                name: "b".into(),
                dtype: DType::F32,
                shape: vec![2, 2],
            },
            OutTensor {
                name: "a".into(),
                dtype: DType::BF16,
                shape: vec![3],
            },
            OutTensor {
                name: "c".into(),
                dtype: DType::F32,
                shape: vec![],
            },
        ]
    }

    fn write(target: &Path, shard_size: u64, options: FolderOptions) -> Result<PathBuf> {
        let list = tensors();
        let layout = Layout::new(&list, shard_size, "model");
        let folder = OutputFolder::create(target, options)?;
        let writer = TensorWriter::create(&folder, &layout)?;
        for (i, tensor) in list.iter().enumerate() {
            if writer.finished(i) {
                continue;
            }
            let values: Vec<f32> = (0..tensor.shape.iter().product::<usize>())
                .map(|v| v as f32)
                .collect();
            let mut bytes = vec![0; tensor.bytes() as usize];
            crate::dtype::narrow(&values, tensor.dtype, &mut bytes);
            let half = bytes.len() / 2;
            writer.write(i, half as u64, &bytes[half..])?;
            writer.write(i, 0, &bytes[..half])?;
        }
        writer.close()?;
        if let Some((name, text)) = &layout.index {
            folder.write_file(name, text)?;
        }
        folder.commit()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        for (size, no_sync) in [(1 << 30, false), (8, true)] {
            let target = dir.path().join(format!("out{size}"));
            write(
                &target,
                size,
                FolderOptions {
                    no_sync,
                    ..Default::default()
                },
            )
            .unwrap();
            let back = Checkpoint::open(&target).unwrap();
            assert_eq!(back.tensors().len(), 3);
            assert_eq!(
                back.read_all(back.get("b").unwrap()).unwrap(),
                [0.0, 1.0, 2.0, 3.0]
            );
            assert_eq!(
                back.read_all(back.get("a").unwrap()).unwrap(),
                [0.0, 1.0, 2.0]
            );
            assert_eq!(back.get("c").unwrap().shape, Vec::<usize>::new());
            assert!(!target.join(RESUME).exists() && !target.join(LOCK).exists());
        }
    }

    #[test]
    fn an_existing_folder_is_replaced_only_by_force() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        write(&target, 1 << 30, FolderOptions::default()).unwrap();
        fs::write(target.join("mine.txt"), "keep").unwrap();
        let error = write(&target, 1 << 30, FolderOptions::default()).unwrap_err();
        assert!(error.to_string().contains("exists already"), "{error}");
        assert!(target.join("mine.txt").exists());
        write(
            &target,
            1 << 30,
            FolderOptions {
                force: true,
                ..Default::default()
            },
        )
        .unwrap();
        assert!(!target.join("mine.txt").exists());
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing hidden is left"
        );
    }

    #[test]
    fn a_failed_run_leaves_nothing_and_resume_keeps_finished_shards() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        let layout = Layout::new(&tensors(), 8, "model");
        let options = FolderOptions {
            fingerprint: "f".into(),
            ..Default::default()
        };
        let folder = OutputFolder::create(&target, options.clone()).unwrap();
        drop(folder);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let folder = OutputFolder::create(&target, options.clone()).unwrap();
        let writer = TensorWriter::create(&folder, &layout).unwrap();
        writer.write(1, 0, &[0, 0, 0x80, 0x3f, 0, 0x40]).unwrap();
        drop(writer);
        folder.keep_partial();
        assert!(!target.exists());
        let resumed = FolderOptions {
            resume: true,
            ..options
        };
        let folder = OutputFolder::create(&target, resumed).unwrap();
        let writer = TensorWriter::create(&folder, &layout).unwrap();
        assert_eq!(
            [writer.finished(0), writer.finished(1), writer.finished(2)],
            [false, true, false]
        );
        drop(writer);
        let other = FolderOptions {
            fingerprint: "g".into(),
            resume: true,
            ..Default::default()
        };
        assert!(
            OutputFolder::create(&target, other.clone()).is_err(),
            "locked"
        );
        folder.keep_partial();
        let folder = OutputFolder::create(&target, other).unwrap();
        let writer = TensorWriter::create(&folder, &layout).unwrap();
        assert!(!writer.finished(1), "another recipe starts afresh");
    }

    #[test]
    fn disk_space_is_checked_first() {
        let dir = tempfile::tempdir().unwrap();
        let options = FolderOptions {
            bytes: u64::MAX / 2,
            ..Default::default()
        };
        let error = OutputFolder::create(dir.path().join("out"), options).unwrap_err();
        assert!(error.to_string().contains("disk space"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
