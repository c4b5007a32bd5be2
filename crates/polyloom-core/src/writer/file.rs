//! One file that appears whole or not at all.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::{Layout, OutTensor, free_space, human};
use crate::error::{Error, Result};

/// A file under construction: its bytes go to a hidden sibling, [`Self::commit`] renames it. Without that it goes away.
#[derive(Debug)]
pub struct OutputFile {
    target: PathBuf,
    temp: PathBuf,
    // Its lock is held while the run lasts; the system releases it even after kill -9.
    file: BufWriter<File>,
    sync: bool,
    committed: bool,
}

impl OutputFile {
    /// Begins a file of `bytes` bytes (checked against the free space); folders above it are made. `force` replaces a
    /// file that is there.
    ///
    /// # Errors
    /// A file that is there already (without `force`), a folder of that name, another run that writes it, a full disk.
    pub fn create(target: &Path, bytes: u64, force: bool, sync: bool) -> Result<Self> {
        let name = target
            .file_name()
            .and_then(|n| n.to_str())
            .ok_or_else(|| Error::format(target, "is not a name for an output file"))?;
        Self::check(target, force)?;
        let parent = match target.parent() {
            Some(p) if !p.as_os_str().is_empty() => p.to_owned(),
            _ => PathBuf::from("."),
        };
        fs::create_dir_all(&parent).map_err(|e| Error::io(&parent, "create", e))?;
        let temp = parent.join(format!(".{name}.polyloom-partial"));
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&temp)
            .map_err(|e| Error::io(target, "create", e))?;
        if let Err(fs::TryLockError::WouldBlock) = file.try_lock() {
            return Err(Error::format(target, "is being written by another run")
                .with_hint("wait for it to end, or choose another name"));
        }
        let made = Self {
            target: target.to_owned(),
            temp,
            sync,
            committed: false,
            file: BufWriter::new(file),
        };
        let emptied = made.file.get_ref().set_len(0);
        emptied.map_err(|e| Error::io(target, "create", e))?;
        if let Some(free) = free_space(&parent)
            && free < bytes
        {
            let (need, free) = (human(bytes), human(free));
            return Err(Error::format(
                target,
                format!("needs {need} of disk space, {free} are free"),
            )
            .with_hint("free some space or write elsewhere"));
        }
        Ok(made)
    }

    /// Says whether a file may be written, before any work is done for it.
    ///
    /// # Errors
    /// As [`Self::create`] for what is there already.
    pub fn check(target: &Path, force: bool) -> Result<()> {
        if target.is_dir() {
            return Err(Error::format(
                target,
                "is a folder; only a file is replaced",
            ));
        }
        if target.exists() && !force {
            return Err(Error::format(target, "exists already")
                .with_hint("choose another name or pass --force to replace it"));
        }
        Ok(())
    }

    /// Writes a safetensors file of one shard; `fill(i, bytes)` gives the content of tensor `i`, in the order of the file.
    ///
    /// # Errors
    /// What `fill` reports; a disk that is full.
    pub fn tensors<E: From<Error>>(
        mut self,
        tensors: &[OutTensor],
        layout: &Layout,
        mut fill: impl FnMut(usize, &mut Vec<u8>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let [shard] = &layout.shards[..] else {
            return Err(Error::format(&self.target, "is one file; its layout has several").into());
        };
        self.write(&shard.header)?;
        let mut order: Vec<usize> = (0..tensors.len()).collect();
        order.sort_by_key(|i| (layout.places[*i].offset, *i));
        let mut bytes = Vec::new();
        for i in order {
            bytes.clear();
            fill(i, &mut bytes)?;
            if bytes.len() as u64 != layout.places[i].bytes {
                let what = format!("got {} bytes", bytes.len());
                return Err(Error::tensor(&self.target, &tensors[i].name, what).into());
            }
            self.write(&bytes)?;
        }
        Ok(self.commit()?)
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// A disk that is full.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.file.write_all(bytes);
        written.map_err(|e| Error::write(&self.target, "write", e, &self.temp))
    }

    /// Makes the file appear under its name.
    ///
    /// # Errors
    /// A disk that is full.
    pub fn commit(mut self) -> Result<()> {
        let mut finished = self.file.flush();
        if self.sync {
            finished = finished.and_then(|()| self.file.get_ref().sync_all());
        }
        finished.map_err(|e| Error::write(&self.target, "write", e, &self.temp))?;
        fs::rename(&self.temp, &self.target).map_err(|e| Error::io(&self.target, "create", e))?;
        self.committed = true;
        if self.sync
            && let Some(parent) = self.target.parent().filter(|p| !p.as_os_str().is_empty())
        {
            super::sync_folder(parent)?;
        }
        Ok(())
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if !self.committed {
            let _ = fs::remove_file(&self.temp);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Checkpoint, DType};

    #[test]
    fn a_file_appears_whole_and_is_replaced_only_by_force() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("sub/s.safetensors");
        let tensors = ["b", "a"].map(|name| OutTensor {
            name: name.into(),
            dtype: DType::F32,
            shape: vec![2],
        });
        let layout = Layout::new(&tensors, u64::MAX, "s");
        let write = |force: bool, values: [f32; 2]| {
            let file = OutputFile::create(&target, layout.total(), force, true)?;
            file.tensors(&tensors, &layout, |i, bytes| {
                let x = values[i];
                bytes.extend([x, x + 1.0].iter().flat_map(|v| v.to_le_bytes()));
                Ok::<_, Error>(())
            })
        };
        write(false, [1.0, 5.0]).unwrap();
        let back = Checkpoint::open(&target).unwrap();
        let read = |name: &str| back.read_all(back.get(name).unwrap()).unwrap();
        assert_eq!((read("b"), read("a")), (vec![1.0, 2.0], vec![5.0, 6.0]));
        let error = write(false, [2.0, 2.0]).unwrap_err().to_string();
        assert!(error.contains("exists already"), "{error}");
        write(true, [3.0, 3.0]).unwrap();
        // What is not committed leaves nothing behind; two runs do not write one file.
        let other = dir.path().join("other");
        let open = OutputFile::create(&other, 1, false, false).unwrap();
        let error = OutputFile::create(&other, 1, false, false).unwrap_err();
        assert!(error.to_string().contains("another run"), "{error}");
        drop(open);
        let left = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 1);
        assert!(OutputFile::create(dir.path(), 1, true, false).is_err());
    }
}
