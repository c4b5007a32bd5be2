//! A checkpoint on disk: which tensors lie where, and positioned reads of any range of them as `f32`.
//!
//! Every input format (safetensors, PyTorch zip pickles, GGUF) reduces to a list of [`StoredTensor`]s over open files,
//! so nothing above this module knows formats.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;

use crate::dtype::{self, DType};
use crate::error::{Error, Problem, Result};
use crate::{gguf, pickle, safetensors};

/// One tensor: its type, shape and place.
#[derive(Debug, Clone)]
pub struct StoredTensor {
    /// Name in the checkpoint.
    pub name: String,
    /// Type of the stored elements.
    pub dtype: DType,
    /// Dimensions, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// Index into [`Checkpoint::files`].
    pub file: usize,
    /// Byte offset of the first element (of the storage, for strided tensors: of logical element 0) in the file.
    pub offset: u64,
    /// How logical row-major elements map to stored ones.
    pub layout: Layout,
    /// Scales of an fp8 weight, applied on reading.
    pub scale: Option<Scale>,
}

/// How logical elements, in row-major order of `shape`, are laid out from `offset` on.
#[derive(Debug, Clone)]
pub enum Layout {
    /// Row-major, without gaps.
    Contiguous,
    /// Element strides per dimension (a PyTorch view that was saved as it was).
    Strided(Vec<usize>),
    /// Row-major, but logical row `r` (all but the first axis flattened) is stored as row `order[r]`
    /// (llama-family GGUF queries and keys).
    RowOrder(Arc<Vec<u32>>),
}

/// Scales of an fp8 tensor: logical `[row, column]` is multiplied by `values[row / block.0][column / block.1]`.
#[derive(Debug, Clone)]
pub struct Scale {
    /// Scales, row-major over blocks.
    pub values: Arc<Vec<f32>>,
    /// Rows and columns of one block; the whole tensor for a per-tensor scale.
    pub block: (usize, usize),
    /// Blocks per row of blocks.
    pub per_row: usize,
}

impl StoredTensor {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Length of one row: the product of all axes but the first (1 for vectors and scalars).
    pub fn row_len(&self) -> usize {
        self.shape.iter().skip(1).product()
    }
}

/// An open file of a checkpoint.
#[derive(Debug)]
pub struct OpenFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its length in bytes when it was opened.
    pub len: u64,
    /// Hash of what the reader parsed (the header), for provenance.
    pub header_hash: u64,
    file: File,
}

impl OpenFile {
    /// Opens a file for positioned reads.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(path, "open", e))?;
        let meta = file.metadata().map_err(|e| Error::io(path, "read", e))?;
        if meta.is_dir() {
            return Err(Error::format(path, "is a folder, not a file"));
        }
        Ok(Self {
            path: path.to_owned(),
            len: meta.len(),
            header_hash: 0,
            file,
        })
    }

    /// Fills `out` from byte `offset` on.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        read_exact_at(&self.file, offset, out).map_err(|e| Error::io(&self.path, "read", e))
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut offset: u64, mut out: &mut [u8]) -> std::io::Result<()> {
    while !out.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_read(file, out, offset)?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        offset += n as u64;
        out = &mut out[n..];
    }
    Ok(())
}

/// Buffers that reads reuse; one per thread.
#[derive(Debug, Default)]
pub struct Scratch {
    bytes: Vec<u8>,
}

/// A set of tensors over one or more open files.
#[derive(Debug)]
pub struct Checkpoint {
    origin: PathBuf,
    files: Vec<OpenFile>,
    tensors: IndexMap<String, StoredTensor>,
    metadata: BTreeMap<String, String>,
    config: Option<serde_json::Value>,
    dropped_scales: bool,
}

impl Checkpoint {
    /// Opens a model folder or a single file. Reads headers only.
    ///
    /// In a folder the first of these is used: `model.safetensors.index.json`, `model.safetensors`,
    /// `adapter_model.safetensors`, `pytorch_model.bin.index.json`, `pytorch_model.bin`, a lone `*.safetensors`,
    /// `*.bin`, `*.pt`, `*.pth` or `*.gguf`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let meta = std::fs::metadata(path).map_err(|e| Error::io(path, "open", e))?;
        let mut checkpoint = if meta.is_dir() {
            Self::open_folder(path)?
        } else {
            Self::open_file(path)?
        };
        if meta.is_dir() {
            let config = path.join("config.json");
            if config.exists() {
                checkpoint.config = Some(read_json(&config)?);
            }
        }
        checkpoint.apply_fp8_scales()?;
        Ok(checkpoint)
    }

    fn open_folder(path: &Path) -> Result<Self> {
        for index in [
            "model.safetensors.index.json",
            "pytorch_model.bin.index.json",
        ] {
            let single = path.join(index.strip_suffix(".index.json").unwrap_or(index));
            if single.exists() {
                return Self::open_parts(path, &[single]);
            }
            let index = path.join(index);
            if index.exists() {
                return Self::open_index(path, &index);
            }
        }
        let entries = std::fs::read_dir(path).map_err(|e| Error::io(path, "read", e))?;
        let mut names: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
        names.sort();
        let with = |suffix: &str| -> Vec<PathBuf> {
            names
                .iter()
                .filter(|p| {
                    let name = p.file_name().and_then(|n| n.to_str()).unwrap_or("");
                    name.ends_with(suffix)
                        && !matches!(
                            name,
                            "training_args.bin"
                                | "optimizer.pt"
                                | "scheduler.pt"
                                | "rng_state.pth"
                                | "scaler.pt"
                        )
                })
                .cloned()
                .collect()
        };
        let indexes = [".safetensors.index.json", ".bin.index.json"];
        if let Some(index) = indexes.iter().flat_map(|s| with(s)).next() {
            return Self::open_index(path, &index);
        }
        for suffix in [".safetensors", ".bin", ".pt", ".pth", ".gguf"] {
            let found = with(suffix);
            match found.len() {
                0 => {}
                1 => return Self::open_parts(path, &found),
                _ => {
                    // Shards without their index are still unambiguous when their names count them.
                    let counted = found.iter().all(|p| {
                        p.file_name()
                            .and_then(|n| n.to_str())
                            .is_some_and(|n| n.contains("-of-"))
                    });
                    if counted {
                        return Self::open_parts(path, &found);
                    }
                    let list: Vec<_> = found
                        .iter()
                        .filter_map(|p| p.file_name()?.to_str())
                        .take(5)
                        .collect();
                    return Err(Error::format(
                        path,
                        format!(
                            "holds {} `*{suffix}` files and no index: {}",
                            found.len(),
                            list.join(", ")
                        ),
                    )
                    .with_hint("name the file itself instead of the folder"));
                }
            }
        }
        Err(Error::format(path, "holds no checkpoint")
            .with_hint("expected model.safetensors, its index, pytorch_model.bin or a .gguf file"))
    }

    fn open_index(folder: &Path, index: &Path) -> Result<Self> {
        let json = read_json(index)?;
        let map = json
            .get("weight_map")
            .and_then(|m| m.as_object())
            .ok_or_else(|| {
                Error::format(index, "has no `weight_map` object")
                    .with_hint("a sharded checkpoint's index maps tensor names to files")
            })?;
        let mut files: Vec<&str> = Vec::new();
        for (tensor, file) in map {
            let file = file.as_str().ok_or_else(|| {
                Error::format(
                    index,
                    format!("`weight_map` entry `{tensor}` is not a file name"),
                )
            })?;
            if file.contains('/') || file.contains('\\') || file.contains("..") {
                return Err(Error::format(
                    index,
                    format!("`weight_map` entry `{tensor}` points outside the folder: {file}"),
                ));
            }
            if !files.contains(&file) {
                files.push(file);
            }
        }
        files.sort_unstable();
        let missing: Vec<_> = files
            .iter()
            .filter(|f| !folder.join(f).exists())
            .copied()
            .collect();
        if !missing.is_empty() {
            return Err(Error::format(
                index,
                format!(
                    "names {} shard(s) that are not in the folder: {}",
                    missing.len(),
                    missing
                        .iter()
                        .take(5)
                        .copied()
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            )
            .with_hint("the download is incomplete; fetch the missing shards"));
        }
        let parts: Vec<PathBuf> = files.iter().map(|f| folder.join(f)).collect();
        let checkpoint = Self::open_parts(folder, &parts)?;
        for (tensor, file) in map {
            if !checkpoint.tensors.contains_key(tensor) {
                let path = folder.join(file.as_str().unwrap_or_default());
                return Err(Error::tensor(
                    path,
                    tensor,
                    "is promised by the index but not in the file",
                )
                .with_hint("index and shards belong to different downloads; fetch both again"));
            }
        }
        Ok(checkpoint)
    }

    fn open_file(path: &Path) -> Result<Self> {
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        if name.ends_with(".index.json") {
            let folder = path.parent().unwrap_or_else(|| Path::new("."));
            return Self::open_index(folder, path);
        }
        Self::open_parts(path, &[path.to_owned()])
    }

    fn open_parts(origin: &Path, parts: &[PathBuf]) -> Result<Self> {
        let mut out = Self {
            origin: origin.to_owned(),
            files: Vec::new(),
            tensors: IndexMap::new(),
            metadata: BTreeMap::new(),
            config: None,
            dropped_scales: false,
        };
        for path in parts {
            let mut file = OpenFile::open(path)?;
            let index = out.files.len();
            let found = match path.extension().and_then(|e| e.to_str()) {
                Some("bin" | "pt" | "pth" | "ckpt") => pickle::read_index(&mut file, index)?,
                Some("gguf") => {
                    let (tensors, config) = gguf::read_index(&mut file, index)?;
                    out.config = config.or(out.config);
                    tensors
                }
                _ => {
                    let (tensors, metadata) = safetensors::read_index(&mut file, index)?;
                    out.metadata.extend(metadata);
                    tensors
                }
            };
            out.files.push(file);
            for tensor in found {
                if let Some(earlier) = out.tensors.get(&tensor.name) {
                    let earlier = &out.files[earlier.file].path;
                    return Err(Error::tensor(
                        path,
                        &tensor.name,
                        format!("is also in {}", earlier.display()),
                    )
                    .with_hint("shards of two downloads are mixed; fetch the checkpoint again"));
                }
                out.tensors.insert(tensor.name.clone(), tensor);
            }
        }
        Ok(out)
    }

    /// Attaches per-tensor and per-block scales to fp8 weights and drops the scale tensors.
    fn apply_fp8_scales(&mut self) -> Result<()> {
        let has_fp8 = self
            .tensors
            .values()
            .any(|t| matches!(t.dtype, DType::F8E4M3 | DType::F8E5M2));
        if !has_fp8 {
            return Ok(());
        }
        let names: Vec<String> = self.tensors.keys().cloned().collect();
        let mut drop = Vec::new();
        let mut scratch = Scratch::default();
        for name in &names {
            let tensor = &self.tensors[name];
            if !matches!(tensor.dtype, DType::F8E4M3 | DType::F8E5M2) {
                continue;
            }
            let found = [format!("{name}_scale_inv"), format!("{name}_scale")]
                .into_iter()
                .find(|s| self.tensors.contains_key(s));
            let Some(scale_name) = found else { continue };
            let scale = &self.tensors[&scale_name];
            let mut values = vec![0.0; scale.elements()];
            self.read_stored(scale, 0..scale.elements(), &mut values, &mut scratch)?;
            let tensor = &self.tensors[name];
            let (rows, cols) = (tensor.shape.first().copied().unwrap_or(1), tensor.row_len());
            let blocks: &[usize] = &self.tensors[&scale_name].shape;
            let scale = if values.len() == 1 {
                Scale {
                    values: Arc::new(values),
                    block: (rows.max(1), cols.max(1)),
                    per_row: 1,
                }
            } else if blocks.len() == 2
                && tensor.shape.len() == 2
                && blocks[0] == rows.div_ceil(128)
                && blocks[1] == cols.div_ceil(128)
            {
                Scale {
                    values: Arc::new(values),
                    block: (128, 128),
                    per_row: blocks[1],
                }
            } else {
                return Err(Error::tensor(
                    &self.files[tensor.file].path,
                    &scale_name,
                    format!("has shape {blocks:?}, which is neither one scale nor one per 128 x 128 block of {:?}", tensor.shape),
                )
                .with_hint("dequantise this checkpoint with its own tools first; config.json's `quantization_config` names them"));
            };
            drop.push(scale_name);
            if let Some(tensor) = self.tensors.get_mut(name) {
                tensor.scale = Some(scale);
            }
        }
        let activation = names.iter().find(|n| {
            n.ends_with(".input_scale")
                || n.ends_with(".activation_scale")
                || n.ends_with("_input_scale")
        });
        if let Some(name) = activation {
            return Err(Error::tensor(&self.origin, name, "is an activation scale, which a merge cannot use")
                .with_hint("dequantise this checkpoint first; config.json's `quantization_config` names the tool"));
        }
        self.dropped_scales = !drop.is_empty();
        self.tensors.retain(|name, _| !drop.contains(name));
        Ok(())
    }

    /// The folder or file that was opened.
    pub fn origin(&self) -> &Path {
        &self.origin
    }

    /// The files, in reading order.
    pub fn files(&self) -> &[OpenFile] {
        &self.files
    }

    /// All tensors by name, in the order of the files.
    pub fn tensors(&self) -> &IndexMap<String, StoredTensor> {
        &self.tensors
    }

    /// One tensor.
    pub fn get(&self, name: &str) -> Option<&StoredTensor> {
        self.tensors.get(name)
    }

    /// Header metadata of safetensors files, joined.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// `config.json` (or what a GGUF file says in its place).
    pub fn config(&self) -> Option<&serde_json::Value> {
        self.config.as_ref()
    }

    /// True if fp8 scale tensors were folded into their weights (the output must drop `quantization_config`).
    pub fn dropped_scales(&self) -> bool {
        self.dropped_scales
    }

    /// The file a tensor lies in, for messages.
    pub fn path_of(&self, tensor: &StoredTensor) -> &Path {
        &self.files[tensor.file].path
    }

    /// Reads elements `range` (row-major) of a tensor as `f32`, fp8 scales applied. `true` says that all values are
    /// known to be finite; `false` says nothing.
    pub fn read_f32(
        &self,
        tensor: &StoredTensor,
        range: Range<usize>,
        out: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<bool> {
        let finite = self.read_stored(tensor, range.clone(), out, scratch)?;
        if let Some(scale) = &tensor.scale {
            let cols = tensor.row_len().max(1);
            for (i, value) in range.zip(out.iter_mut()) {
                let (row, col) = (i / cols, i % cols);
                *value *= scale.values[row / scale.block.0 * scale.per_row + col / scale.block.1];
            }
        }
        Ok(finite && tensor.scale.is_none())
    }

    /// Elements from `start` on less `minus`, in one go for the plain cases. `false`: nothing of use was read, because
    /// the case is not plain or a value is not finite; [`Self::read_f32`] is the long way.
    pub fn read_less(
        &self,
        tensor: &StoredTensor,
        start: usize,
        minus: &[f32],
        out: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<bool> {
        let plain = matches!(tensor.dtype, DType::BF16 | DType::F32)
            && matches!(tensor.layout, Layout::Contiguous)
            && tensor.scale.is_none();
        if !plain {
            return Ok(false);
        }
        let size = tensor.dtype.block().1;
        scratch.bytes.resize(out.len() * size, 0);
        self.files[tensor.file]
            .read_at(tensor.offset + (start * size) as u64, &mut scratch.bytes)?;
        Ok(dtype::widen_less(tensor.dtype, &scratch.bytes, minus, out))
    }

    fn read_stored(
        &self,
        tensor: &StoredTensor,
        range: Range<usize>,
        out: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<bool> {
        assert_eq!(range.len(), out.len(), "read: length of the buffer");
        if range.is_empty() {
            return Ok(true);
        }
        match &tensor.layout {
            Layout::Contiguous => self.read_run(tensor, range.start, out, scratch),
            Layout::RowOrder(order) => {
                let row = tensor.row_len().max(1);
                let mut at = range.start;
                let mut rest = out;
                let mut finite = true;
                while !rest.is_empty() {
                    let (r, c) = (at / row, at % row);
                    let n = (row - c).min(rest.len());
                    let (now, later) = rest.split_at_mut(n);
                    finite &= self.read_run(tensor, order[r] as usize * row + c, now, scratch)?;
                    at += n;
                    rest = later;
                }
                Ok(finite)
            }
            Layout::Strided(strides) => {
                self.read_strided(tensor, strides, range, out, scratch)?;
                Ok(false)
            }
        }
    }

    /// Reads `out.len()` stored elements from stored element `start` on; unaligned ends of blocks are cut off.
    fn read_run(
        &self,
        tensor: &StoredTensor,
        start: usize,
        out: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<bool> {
        let (per, size) = tensor.dtype.block();
        let first = start / per;
        let last = (start + out.len()).div_ceil(per);
        scratch.bytes.resize((last - first) * size, 0);
        self.files[tensor.file]
            .read_at(tensor.offset + (first * size) as u64, &mut scratch.bytes)?;
        if first * per == start && last * per == start + out.len() {
            Ok(dtype::widen(tensor.dtype, &scratch.bytes, out))
        } else {
            let mut whole = vec![0.0; (last - first) * per];
            dtype::widen(tensor.dtype, &scratch.bytes, &mut whole);
            out.copy_from_slice(&whole[start - first * per..][..out.len()]);
            Ok(false)
        }
    }

    /// Gathers logical elements in the order of their places, so that neighbours share one read and memory stays
    /// bounded however far apart a view's elements lie.
    fn read_strided(
        &self,
        tensor: &StoredTensor,
        strides: &[usize],
        range: Range<usize>,
        out: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<()> {
        /// Elements gathered at once.
        const BATCH: usize = 1 << 20;
        /// Stored elements between two wanted ones that are read rather than skipped.
        const GAP: usize = 256;
        /// Most stored elements of one read.
        const RUN: usize = 1 << 18;
        let mut places: Vec<(usize, u32)> = Vec::with_capacity(out.len().min(BATCH));
        let mut run = Vec::new();
        for (k, out) in out.chunks_mut(BATCH).enumerate() {
            let first = range.start + k * BATCH;
            places.clear();
            places.extend((first..first + out.len()).zip(0u32..).map(|(mut i, to)| {
                let mut at = 0;
                for (d, s) in tensor.shape.iter().zip(strides).rev() {
                    at += (i % d) * s;
                    i /= d;
                }
                (at, to)
            }));
            if !places.is_sorted() {
                places.sort_unstable();
            }
            let mut rest = places.as_slice();
            while let Some(&(low, _)) = rest.first() {
                let mut high = low;
                let n = rest
                    .iter()
                    .take_while(|(at, _)| {
                        let near = at - high <= GAP && at - low < RUN;
                        high = if near { *at } else { high };
                        near
                    })
                    .count();
                let (now, later) = rest.split_at(n);
                run.resize(high - low + 1, 0.0);
                self.read_run(tensor, low, &mut run, scratch)?;
                for (at, to) in now {
                    out[*to as usize] = run[at - low];
                }
                rest = later;
            }
        }
        Ok(())
    }

    /// Reads a whole tensor as `f32`.
    pub fn read_all(&self, tensor: &StoredTensor) -> Result<Vec<f32>> {
        let mut out = vec![0.0; tensor.elements()];
        self.read_f32(tensor, 0..out.len(), &mut out, &mut Scratch::default())?;
        Ok(out)
    }

    /// Reads stored bytes `range` of a contiguous tensor, unconverted (for copies that must not round).
    pub fn read_bytes(
        &self,
        tensor: &StoredTensor,
        range: Range<u64>,
        out: &mut [u8],
    ) -> Result<()> {
        if !matches!(tensor.layout, Layout::Contiguous) {
            return Err(Error::tensor(
                self.path_of(tensor),
                &tensor.name,
                "is a view and cannot be copied as it is",
            ));
        }
        assert_eq!(
            range.end - range.start,
            out.len() as u64,
            "read: length of the buffer"
        );
        self.files[tensor.file].read_at(tensor.offset + range.start, out)
    }
}

/// Number of elements of a shape from a file. Refuses shapes whose product of non-zero axes overflows, so that later
/// products of some of the axes cannot.
pub(crate) fn count(name: &str, shape: &[usize]) -> Result<usize, Problem> {
    shape
        .iter()
        .try_fold(1usize, |n, d| n.checked_mul((*d).max(1)))
        .map(|n| if shape.contains(&0) { 0 } else { n })
        .ok_or_else(|| {
            Problem::of(
                name,
                format!("has shape {shape:?}, more elements than can exist"),
            )
        })
}

/// Reads a JSON file with a size limit, naming the file in every error.
pub fn read_json(path: &Path) -> Result<serde_json::Value> {
    const LIMIT: u64 = 256 << 20;
    let meta = std::fs::metadata(path).map_err(|e| Error::io(path, "open", e))?;
    if meta.len() > LIMIT {
        return Err(Error::format(
            path,
            format!(
                "is {} bytes; a JSON file of a model has at most {LIMIT}",
                meta.len()
            ),
        ));
    }
    let text = std::fs::read(path).map_err(|e| Error::io(path, "read", e))?;
    serde_json::from_slice(&text)
        .map_err(|e| Error::format(path, format!("is not valid JSON: {e}")))
}
