//! Shared by the integration tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use polyloom::plan::execute::{HashKind, Report, RunOptions, execute};
use polyloom::plan::reference::Places;
use polyloom::plan::{self, Plan};
use polyloom::recipe::Recipe;
use polyloom::{MergeError, Result};
use polyloom_core::dtype::narrow;
use polyloom_core::writer::{OutTensor, safetensors_bytes};
use polyloom_core::{Checkpoint, DType};

/// The folder of a family of test vectors: `POLYLOOM_GOLDEN`, else `../shared/golden` beside the checkout, else the
/// subset in the repository.
pub fn golden(family: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let places = [
        std::env::var_os("POLYLOOM_GOLDEN").map(PathBuf::from),
        Some(root.join("../shared/golden")),
        Some(root.join("tests/golden")),
    ];
    places
        .into_iter()
        .flatten()
        .map(|p| p.join(family))
        .find(|p| p.join("manifest.json").exists())
        .expect("no test vectors: set POLYLOOM_GOLDEN")
}

/// Options of a run into `target`.
pub fn options(target: &Path) -> RunOptions<'static> {
    RunOptions {
        target: target.to_owned(),
        shard_size: 5_000_000_000,
        force: false,
        no_sync: true,
        resume: false,
        allow_nonfinite: false,
        chunk: 0,
        hash: HashKind::Fast,
        stop: None,
        progress: None,
    }
}

/// Plans and runs.
pub fn merge(recipe: Recipe, target: &Path) -> Result<Report, Vec<MergeError>> {
    let plan: Plan = plan::build(recipe, &Places::default())?;
    execute(&plan, &options(target)).map_err(|e| vec![e])
}

/// Writes a model folder with f32 tensors.
pub fn model(folder: &Path, tensors: &[(&str, &[usize], Vec<f32>)]) {
    model_as(folder, DType::F32, tensors);
}

/// Writes a model folder in one type.
pub fn model_as(folder: &Path, dtype: DType, tensors: &[(&str, &[usize], Vec<f32>)]) {
    std::fs::create_dir_all(folder).unwrap();
    let list: Vec<_> = tensors
        .iter()
        .map(|(name, shape, values)| {
            let tensor = OutTensor {
                name: (*name).into(),
                dtype,
                shape: shape.to_vec(),
            };
            let mut bytes = vec![0; tensor.bytes() as usize];
            narrow(values, dtype, &mut bytes);
            (tensor, bytes)
        })
        .collect();
    std::fs::write(
        folder.join("model.safetensors"),
        safetensors_bytes(&list, &BTreeMap::new()),
    )
    .unwrap();
    std::fs::write(
        folder.join("config.json"),
        r#"{"model_type":"toy","torch_dtype":"float32"}"#,
    )
    .unwrap();
}

/// All tensors of a folder.
pub fn read(folder: &Path) -> BTreeMap<String, Vec<f32>> {
    let checkpoint = Checkpoint::open(folder).unwrap();
    checkpoint
        .tensors()
        .values()
        .map(|t| (t.name.clone(), checkpoint.read_all(t).unwrap()))
        .collect()
}
