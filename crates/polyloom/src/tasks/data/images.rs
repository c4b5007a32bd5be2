//! Folders of images: `root/<class>/<file>`, or a `manifest.csv`.

use std::path::{Path, PathBuf};

use image::{ImageReader, Limits as Decoder};

use super::table::Owned;
use super::{Limits, Table, Visit, bad, csv};
use crate::error::Result;

/// One image file of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Path below the root, with `/`.
    pub name: String,
    /// Class: the folder it lies in, or the manifest's word.
    pub label: String,
}

const MANIFEST: &str = "manifest.csv";
const ENDINGS: [&str; 5] = ["png", "jpg", "jpeg", "bmp", "raw"];

/// The images of a split, sorted by path (a manifest keeps its order). `part` is a sub-folder, or the value of the
/// manifest's `split` column; empty takes all. A `manifest.csv` (`file`, `label`, optionally `split`) wins over folders.
///
/// # Errors
/// A folder that cannot be read, a manifest without these columns, a file name that leaves the folder, no image.
pub fn list(root: &Path, part: &str, limits: &Limits) -> Result<Vec<Listed>> {
    let manifest = root.join(MANIFEST);
    let mut out = Vec::new();
    if manifest.is_file() {
        csv::read(&manifest, b',', limits, &mut |t: Table| {
            for name in ["file", "label"] {
                if !t.has(name) {
                    return Err(bad(&manifest, format!("has no column `{name}`")));
                }
            }
            for row in 0..t.rows() {
                let text = |name: &str| {
                    t.column(name)
                        .map_or_else(String::new, |c| c.cell(row).to_text())
                };
                if !part.is_empty() && t.has("split") && text("split") != part {
                    continue;
                }
                let name = text("file");
                let inside = Path::new(&name)
                    .components()
                    .all(|c| matches!(c, std::path::Component::Normal(_)));
                if !inside || name.is_empty() {
                    return Err(bad(
                        &manifest,
                        format!("`{name}` is no file below this folder"),
                    ));
                }
                out.push(Listed {
                    name,
                    label: text("label"),
                });
            }
            Ok(())
        })?;
    } else {
        let folder = if root.join(part).is_dir() {
            root.join(part)
        } else {
            root.to_owned()
        };
        for class in entries(&folder)?.into_iter().filter(|p| p.is_dir()) {
            let label = class
                .file_name()
                .and_then(|n| n.to_str())
                .unwrap_or_default()
                .to_owned();
            for file in entries(&class)? {
                let ending = file
                    .extension()
                    .and_then(|e| e.to_str())
                    .unwrap_or_default()
                    .to_lowercase();
                let name = file.strip_prefix(root).ok().and_then(Path::to_str);
                if let (true, Some(name)) = (ENDINGS.contains(&&*ending), name) {
                    out.push(Listed {
                        name: name.to_owned(),
                        label: label.clone(),
                    });
                }
            }
        }
    }
    if out.is_empty() {
        let error = bad(&root.join(part), "holds no images");
        return Err(error.hint(
            "expected <class>/<file>.png (or .jpg, .bmp, .raw), or a manifest.csv with file,label",
        ));
    }
    Ok(out)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let io = |e| polyloom_core::Error::io(folder, "read", e);
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        out.push(entry.map_err(io)?.path());
    }
    out.sort();
    Ok(out)
}

/// Reads the images of a split as rows of `file`, `label`, `image` (u8, rows of pixels, channels last), `height`, `width`,
/// `channels`. `size` is [height, width, channels] (1 grey, 3 RGB, 4 RGBA) that every image must have and that `.raw`
/// files need; without it grey images give 1 channel and all others 3. Memory: a batch of at most `limits.image_bytes`.
///
/// # Errors
/// As [`list`]; an image that is broken, of another size, or larger than `limits.image_bytes` once unpacked.
pub fn read(
    root: &Path,
    part: &str,
    size: Option<[u32; 3]>,
    limits: &Limits,
    visit: Visit,
) -> Result<()> {
    const COLUMNS: [&str; 6] = ["file", "label", "image", "height", "width", "channels"];
    let fresh = || Table::with_columns(COLUMNS);
    let (mut batch, mut bytes) = (fresh(), 0);
    for listed in list(root, part, limits)? {
        let (pixels, [h, w, c]) = decode(&root.join(&listed.name), size, limits)?;
        bytes += pixels.len() as u64;
        let row = [
            Owned::Text(listed.name),
            Owned::Text(listed.label),
            Owned::Bytes(pixels),
            Owned::Number(h.into()),
            Owned::Number(w.into()),
            Owned::Number(c.into()),
        ];
        batch.push(row.into_iter());
        if bytes >= limits.image_bytes / 4 || batch.rows() >= limits.batch_rows {
            bytes = 0;
            visit(std::mem::replace(&mut batch, fresh()))?;
        }
    }
    if batch.rows() > 0 {
        visit(batch)?;
    }
    Ok(())
}

/// One image as raw pixels with its size.
///
/// # Errors
/// As [`read`].
pub fn decode(path: &Path, size: Option<[u32; 3]>, limits: &Limits) -> Result<(Vec<u8>, [u32; 3])> {
    let io = |e| polyloom_core::Error::io(path, "open", e);
    if path
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("raw"))
    {
        let size = size.ok_or_else(|| {
            bad(path, "is raw pixels, whose size is unknown")
                .hint("source.size = [height, width, channels]")
        })?;
        let expected: u64 = size.iter().map(|x| u64::from(*x)).product();
        let found = std::fs::metadata(path).map_err(io)?.len();
        if found != expected || expected > limits.image_bytes {
            return Err(bad(
                path,
                format!("has {found} bytes, {size:?} needs {expected}"),
            ));
        }
        return Ok((std::fs::read(path).map_err(io)?, size));
    }
    let failed = |e: image::ImageError| bad(path, format!("is no readable image: {e}"));
    let open = || -> Result<ImageReader<_>> {
        ImageReader::open(path)
            .map_err(io)?
            .with_guessed_format()
            .map_err(|e| io(e).into())
    };
    // The size is known from the first bytes: a bomb or a stranger is refused before it is unpacked.
    let (w, h) = open()?.into_dimensions().map_err(failed)?;
    let most = u64::from(w) * u64::from(h) * 4;
    if most > limits.image_bytes {
        return Err(bad(
            path,
            format!(
                "is {h} x {w} pixels, more than {} bytes unpacked",
                limits.image_bytes
            ),
        ));
    }
    if let Some([height, width, _]) = size
        && (h, w) != (height, width)
    {
        let error = bad(
            path,
            format!("is {h} x {w} pixels, source.size says {height} x {width}"),
        );
        return Err(error.hint("resize it, or leave source.size out"));
    }
    let mut reader = open()?;
    let mut decoder = Decoder::default();
    decoder.max_alloc = Some(limits.image_bytes.saturating_mul(2));
    reader.limits(decoder);
    let image = reader.decode().map_err(failed)?;
    let grey = !image.color().has_color() && !image.color().has_alpha();
    let channels = size.map_or(if grey { 1 } else { 3 }, |s| s[2]);
    let pixels = match channels {
        1 => image.into_luma8().into_raw(),
        3 => image.into_rgb8().into_raw(),
        4 => image.into_rgba8().into_raw(),
        other => {
            return Err(bad(
                path,
                format!("source.size asks for {other} channels; 1, 3 or 4 are there"),
            ));
        }
    };
    Ok((pixels, [h, w, channels]))
}
