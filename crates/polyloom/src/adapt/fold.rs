//! Folding an adapter into its base, written as a full checkpoint folder (PEFT: `merge_and_unload`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use polyloom_core::checkpoint::{Layout as Stored, Scratch};
use polyloom_core::peft::Folded;
use polyloom_core::writer::{FolderOptions, Layout, OutTensor, OutputFolder, TensorWriter};
use polyloom_core::{DType, dtype};
use rayon::prelude::*;

use crate::error::{MergeError, Result};
use crate::output::companion_files;
use crate::output::config::{Edits, edit_config};

/// Settings of [`fold`].
#[derive(Debug, Clone)]
pub struct FoldWriteOptions {
    /// Type of the written weights; the base's own per tensor if unset (bf16 for quantised bases).
    pub dtype: Option<DType>,
    /// Largest file in bytes.
    pub shard_size: u64,
    /// Write although a result is not finite (PEFT's unsafe merge).
    pub allow_nonfinite: bool,
    /// How the folder comes into being.
    pub folder: FolderOptions,
}

impl Default for FoldWriteOptions {
    fn default() -> Self {
        Self {
            dtype: None,
            shard_size: 5_000_000_000,
            allow_nonfinite: false,
            folder: FolderOptions::default(),
        }
    }
}

/// What [`fold`] did.
#[derive(Debug, Clone)]
pub struct FoldReport {
    /// The folder.
    pub folder: PathBuf,
    /// Tensors the adapter changed, replaced or added.
    pub touched: usize,
    /// Tensors in all.
    pub tensors: usize,
    /// Bytes of tensors.
    pub bytes: u64,
    /// What is odd.
    pub warnings: Vec<String>,
}

/// Elements per task.
const CHUNK: usize = 1 << 20;

/// Writes the folded model, its config and the files beside it into `target`, all at once. Tensors stream in pieces of
/// a million elements; untouched ones keep their bytes. Values that are not finite or overflow the type are an error.
pub fn fold(folded: &Folded, target: &Path, options: &FoldWriteOptions) -> Result<FoldReport> {
    let tensors: Vec<OutTensor> = folded
        .tensors()
        .into_iter()
        .map(|(name, dtype, shape)| OutTensor {
            name,
            dtype: written(dtype, options.dtype),
            shape,
        })
        .collect();
    let layout = Layout::new(&tensors, options.shard_size, "model");
    let mut folder_options = options.folder.clone();
    folder_options.bytes = layout.total();
    let folder = OutputFolder::create(target, folder_options)?;
    let writer = TensorWriter::create(&folder, &layout)?;
    let tasks: Vec<(usize, usize)> = tensors
        .iter()
        .enumerate()
        .filter(|(i, _)| !writer.finished(*i))
        .flat_map(|(i, t)| {
            let n: usize = t.shape.iter().product();
            (0..n).step_by(CHUNK).map(move |at| (i, at))
        })
        .collect();
    tasks.par_iter().try_for_each_init(
        || (vec![0.0f32; CHUNK], Vec::new(), Scratch::default()),
        |(values, bytes, scratch), &(i, at)| {
            let tensor = &tensors[i];
            let n: usize = tensor.shape.iter().product();
            let range = at..n.min(at + CHUNK);
            piece(
                folded,
                tensor,
                range.clone(),
                values,
                bytes,
                scratch,
                options,
            )?;
            let (per, size) = tensor.dtype.block();
            writer.write(i, (at / per * size) as u64, bytes)?;
            Ok::<(), MergeError>(())
        },
    )?;
    writer.close()?;
    if let Some((name, bytes)) = &layout.index {
        folder.write_file(name, bytes)?;
    }
    let warnings = files(folded, &tensors, &folder, options)?;
    let touched = tensors.iter().filter(|t| folded.touched(&t.name)).count();
    Ok(FoldReport {
        folder: folder.commit()?,
        touched,
        tensors: tensors.len(),
        bytes: layout.total(),
        warnings,
    })
}

/// Type a tensor is written as: integers stay, quantised weights become bf16 unless something else is asked for.
fn written(dtype: DType, asked: Option<DType>) -> DType {
    let quantised = dtype.is_block() || matches!(dtype, DType::F8E4M3 | DType::F8E5M2);
    if quantised {
        asked.unwrap_or(DType::BF16)
    } else if dtype.is_float() {
        asked.unwrap_or(dtype)
    } else {
        dtype
    }
}

/// Fills `bytes` with elements `range` as they go to disk.
fn piece(
    folded: &Folded,
    tensor: &OutTensor,
    range: std::ops::Range<usize>,
    values: &mut [f32],
    bytes: &mut Vec<u8>,
    scratch: &mut Scratch,
    options: &FoldWriteOptions,
) -> Result<()> {
    let (per, size) = tensor.dtype.block();
    bytes.resize(range.len().div_ceil(per) * size, 0);
    if !folded.touched(&tensor.name)
        && let Some(stored) = folded.base().get(&tensor.name)
        && stored.dtype == tensor.dtype
        && stored.scale.is_none()
        && matches!(stored.layout, Stored::Contiguous)
    {
        let start = (range.start / per * size) as u64;
        let end = start + bytes.len() as u64;
        folded.base().read_bytes(stored, start..end, bytes)?;
        return Ok(());
    }
    if !tensor.dtype.is_float() {
        return Err(MergeError::plan(
            "bad-dtype",
            format!(
                "tensor `{}` is a view of {} values, which cannot be copied",
                tensor.name, tensor.dtype
            ),
        ));
    }
    let values = &mut values[..range.len()];
    folded.read_f32(&tensor.name, range.clone(), values, scratch)?;
    let broken = values.iter().position(|v| !v.is_finite());
    if let (Some(i), false) = (broken, options.allow_nonfinite) {
        return Err(MergeError::NonFinite {
            file: folded.adapter().path.display().to_string(),
            tensor: tensor.name.clone(),
            what: if values[i].is_nan() {
                "NaN"
            } else {
                "infinity"
            },
            index: range.start + i,
        });
    }
    let overflows = dtype::narrow(values, tensor.dtype, bytes);
    if overflows > 0 && !options.allow_nonfinite {
        return Err(MergeError::plan(
            "overflow",
            format!(
                "tensor `{}`: {overflows} values are too large for {}",
                tensor.name, tensor.dtype
            ),
        )
        .hint("write the model as bf16 or f32"));
    }
    Ok(())
}

/// Writes config, tokenizer and the like; returns what cannot be kept consistent.
fn files(
    folded: &Folded,
    tensors: &[OutTensor],
    folder: &OutputFolder,
    options: &FoldWriteOptions,
) -> Result<Vec<String>> {
    let mut warnings = folded.warnings().to_vec();
    let base = folded.base();
    let mut vocab = None;
    for tensor in tensors {
        match base.get(&tensor.name) {
            Some(old) if old.shape != tensor.shape => {
                let last = tensor.name.strip_suffix(".weight").unwrap_or_default();
                if last.ends_with("embed_tokens") || last.ends_with("word_embeddings") {
                    vocab = tensor.shape.first().copied();
                }
            }
            None => warnings.push(format!(
                "tensor `{}` is new; config.json still describes the base without it",
                tensor.name
            )),
            Some(_) => {}
        }
    }
    if let Some(config) = base.config() {
        let quantised = base.dropped_scales();
        let mut bytes_of: BTreeMap<&str, (u64, DType)> = BTreeMap::new();
        for t in tensors.iter().filter(|t| t.dtype.is_float()) {
            bytes_of.entry(t.dtype.name()).or_insert((0, t.dtype)).0 += t.bytes();
        }
        let main = bytes_of.values().max_by_key(|(n, _)| *n).map(|(_, d)| *d);
        let edits = Edits {
            dtype: main.filter(|_| options.dtype.is_some() || quantised),
            vocab_size: vocab,
            dequantized: quantised,
            ..Edits::default()
        };
        let edited = edit_config(config, &edits);
        warnings.extend(edited.warnings);
        let text = serde_json::to_string_pretty(&edited.config)
            .map_err(|e| MergeError::Internal(e.to_string()))?;
        folder.write_file("config.json", text.as_bytes())?;
    }
    let mut sources: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    let mut from = vec![];
    if base.origin().is_dir() {
        from.push(base.origin().to_owned());
    }
    // New rows of the embedding come with the tokenizer that knows them.
    if vocab.is_some() && folded.adapter().path.join("tokenizer_config.json").exists() {
        from.push(folded.adapter().path.clone());
    }
    for root in from {
        for name in companion_files(&root)? {
            sources.insert(name.clone(), root.join(&name));
        }
    }
    for (name, path) in sources {
        folder.copy_file(&path, name)?;
    }
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use polyloom_core::Checkpoint;
    use polyloom_core::peft::{AdapterFolder, LayerKind, Names};
    use polyloom_core::writer::safetensors_bytes;

    use super::super::set::{AdapterSet, Pair};
    use super::*;
    use polyloom_core::linalg::Matrix;

    fn base(folder: &Path, name: &str, values: &[f32]) -> Arc<Checkpoint> {
        let out = |name: &str, dtype, shape: Vec<usize>| OutTensor {
            name: name.into(),
            dtype,
            shape,
        };
        let mut bytes = vec![0; values.len() * 2];
        dtype::narrow(values, DType::BF16, &mut bytes);
        let tensors = [
            (out(name, DType::BF16, vec![2, 3]), bytes),
            (
                out("ids", DType::I64, vec![1]),
                vec![7, 0, 0, 0, 0, 0, 0, 0],
            ),
        ];
        let path = folder.join("model.safetensors");
        std::fs::write(path, safetensors_bytes(&tensors, &BTreeMap::new())).unwrap();
        std::fs::write(folder.join("config.json"), r#"{"model_type": "x"}"#).unwrap();
        Arc::new(Checkpoint::open(folder).unwrap())
    }

    fn adapter(folder: &Path, module: &str) -> AdapterFolder {
        let pair = Pair {
            a: Matrix::from_f32(1, 3, &[1.0, 2.0, -1.0]),
            b: Matrix::from_f32(2, 1, &[0.5, 4.0]),
            kind: LayerKind::Linear,
        };
        let targets = Names::List(vec!["q".into()]);
        let modules = vec![(module.to_owned(), pair, DType::F32)];
        let set = AdapterSet::unscaled(&serde_json::Map::new(), &targets, 1, modules);
        set.write(folder, "", FolderOptions::default()).unwrap();
        AdapterFolder::open(folder).unwrap()
    }

    #[test]
    fn a_folded_model_is_base_plus_product() {
        let temp = tempfile::tempdir().unwrap();
        let base = base(
            temp.path(),
            "layers.0.q.weight",
            &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        );
        let folded = Folded::open(base, adapter(&temp.path().join("a"), "layers.0.q")).unwrap();
        assert!(folded.touched("layers.0.q.weight") && !folded.touched("ids"));
        let out = temp.path().join("out");
        let report = fold(&folded, &out, &FoldWriteOptions::default()).unwrap();
        assert_eq!((report.touched, report.tensors), (1, 2));
        let back = Checkpoint::open(&out).unwrap();
        let q = back.get("layers.0.q.weight").unwrap();
        assert_eq!(q.dtype, DType::BF16);
        assert_eq!(back.read_all(q).unwrap(), [1.5, 1.0, -0.5, 4.0, 9.0, -4.0]);
        assert_eq!(back.get("ids").unwrap().dtype, DType::I64);
        assert!(out.join("config.json").exists());
    }

    #[test]
    fn prefixes_of_either_side_are_bridged_when_only_one_fits() {
        for (stored, module) in [
            ("encoder.q.weight", "bert.encoder.q"),
            ("model.layers.q.weight", "layers.q"),
        ] {
            let temp = tempfile::tempdir().unwrap();
            let base = base(temp.path(), stored, &[0.0; 6]);
            let folded = Folded::open(base, adapter(&temp.path().join("a"), module)).unwrap();
            assert!(folded.touched(stored), "{stored}");
        }
        let temp = tempfile::tempdir().unwrap();
        let base = base(temp.path(), "encoder.k.weight", &[0.0; 6]);
        let error = Folded::open(base, adapter(&temp.path().join("a"), "encoder.q")).unwrap_err();
        assert!(error.to_string().contains("encoder.q"), "{error}");
    }

    #[test]
    fn a_wrong_shape_names_the_module_and_both_shapes() {
        let temp = tempfile::tempdir().unwrap();
        let base = base(temp.path(), "q.weight", &[0.0; 6]);
        let path = temp.path().join("a");
        let pair = Pair {
            a: Matrix::zeros(1, 5),
            b: Matrix::zeros(2, 1),
            kind: LayerKind::Linear,
        };
        let targets = Names::List(vec!["q".into()]);
        let modules = vec![("q".to_owned(), pair, DType::F32)];
        AdapterSet::unscaled(&serde_json::Map::new(), &targets, 1, modules)
            .write(&path, "", FolderOptions::default())
            .unwrap();
        let error = Folded::open(base, AdapterFolder::open(&path).unwrap()).unwrap_err();
        let text = error.to_string();
        for part in ["`q`", "[2, 3]", "[1, 5]", "[2, 1]"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn dora_without_magnitudes_says_what_is_missing() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a");
        adapter(&path, "q");
        let config = path.join("adapter_config.json");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(
            &config,
            text.replace("\"use_dora\": false", "\"use_dora\": true"),
        )
        .unwrap();
        let error = AdapterFolder::open(&path).unwrap_err();
        let text = error.to_string();
        let end = "adapter_config.json: `use_dora` is true, but adapter_model.safetensors holds no `lora_magnitude_vector` tensors";
        assert!(text.ends_with(end), "{text}");
        assert!(error.hint().unwrap().contains("export it again"));
    }
}
