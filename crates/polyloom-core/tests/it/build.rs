//! Writers of small files, made for writing wrong ones.

/// A safetensors file with any text as its header.
pub(crate) fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.extend(data);
    out
}

/// One entry of a zip archive; every field can lie.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) data: Vec<u8>,
    pub(crate) method: u16,
    pub(crate) flags: u16,
    /// Size in the directory, if not the data's.
    pub(crate) claims: Option<u32>,
    /// Name before the data, if another.
    pub(crate) local_name: Option<String>,
}

impl Entry {
    pub(crate) fn new(name: &str, data: &[u8]) -> Self {
        Self {
            name: name.into(),
            data: data.into(),
            method: 0,
            flags: 0,
            claims: None,
            local_name: None,
        }
    }
}

/// A zip archive; `zip64` puts sizes and places into zip64 fields and records.
pub(crate) fn zip(entries: &[Entry], zip64: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    for entry in entries {
        let at = out.len() as u32;
        let size = entry.claims.unwrap_or(entry.data.len() as u32);
        let local = entry.local_name.as_ref().unwrap_or(&entry.name);
        let common = |out: &mut Vec<u8>, packed: u32, name: &str, extra: u16| {
            out.extend(20u16.to_le_bytes());
            out.extend(entry.flags.to_le_bytes());
            out.extend(entry.method.to_le_bytes());
            out.extend([0; 8]); // time, date, checksum
            out.extend(packed.to_le_bytes());
            out.extend(packed.to_le_bytes());
            out.extend((name.len() as u16).to_le_bytes());
            out.extend(extra.to_le_bytes());
        };
        out.extend(b"PK\x03\x04");
        common(&mut out, size, local, 3);
        out.extend(local.as_bytes());
        out.extend([0; 3]); // padding, as torch.save aligns data
        out.extend(&entry.data);
        directory.extend(b"PK\x01\x02\x14\x00");
        let (short, extra) = if zip64 { (u32::MAX, 28) } else { (size, 0) };
        common(&mut directory, short, &entry.name, extra);
        directory.extend([0; 10]); // comment, disk, attributes
        directory.extend(if zip64 { u32::MAX } else { at }.to_le_bytes());
        directory.extend(entry.name.as_bytes());
        if zip64 {
            directory.extend([1, 0, 24, 0]);
            for value in [size, size, at] {
                directory.extend(u64::from(value).to_le_bytes());
            }
        }
    }
    let (at, n, size) = (out.len(), entries.len(), directory.len());
    out.extend(&directory);
    if zip64 {
        let end = out.len() as u64;
        out.extend(b"PK\x06\x06");
        out.extend(44u64.to_le_bytes());
        out.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for value in [n, n, size, at] {
            out.extend((value as u64).to_le_bytes());
        }
        out.extend(b"PK\x06\x07\0\0\0\0");
        out.extend(end.to_le_bytes());
        out.extend([1, 0, 0, 0]);
    }
    out.extend(b"PK\x05\x06\0\0\0\0");
    let cut = |v: usize| if zip64 { u32::MAX } else { v as u32 };
    out.extend((cut(n) as u16).to_le_bytes());
    out.extend((cut(n) as u16).to_le_bytes());
    out.extend(cut(size).to_le_bytes());
    out.extend(cut(at).to_le_bytes());
    out.extend([0, 0]);
    out
}

/// A float32 view of storage `key`.
#[derive(Clone)]
pub(crate) struct View<'a> {
    pub(crate) name: &'a str,
    pub(crate) key: &'a str,
    pub(crate) len: i64,
    pub(crate) offset: i64,
    pub(crate) shape: &'a [i64],
    pub(crate) strides: &'a [i64],
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

fn int(out: &mut Vec<u8>, n: i64) {
    out.extend([0x8a, 8]);
    out.extend(n.to_le_bytes());
}

/// The pickle of a dict of views, as torch.save writes it.
pub(crate) fn pickle(views: &[View<'_>]) -> Vec<u8> {
    let mut out = b"\x80\x02}(".to_vec();
    for view in views {
        text(&mut out, view.name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut out, "storage");
        out.extend(b"ctorch\nFloatStorage\n");
        text(&mut out, view.key);
        text(&mut out, "cpu");
        int(&mut out, view.len);
        out.extend(b"tQ");
        int(&mut out, view.offset);
        for sizes in [view.shape, view.strides] {
            out.push(b'(');
            for n in sizes {
                int(&mut out, *n);
            }
            out.push(b't');
        }
        out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    out.extend(b"u.");
    out
}

/// The entries of an archive of `views` over float32 storages.
pub(crate) fn archive(views: &[View<'_>], storages: &[(&str, &[f32])]) -> Vec<Entry> {
    let mut entries = vec![
        Entry::new("m/data.pkl", &pickle(views)),
        Entry::new("m/byteorder", b"little"),
    ];
    for (key, values) in storages {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        entries.push(Entry::new(&format!("m/data/{key}"), &bytes));
    }
    entries
}

/// A GGUF file in pieces; counts can lie.
#[derive(Clone, Default)]
pub(crate) struct Gguf {
    pub(crate) meta: Vec<u8>,
    pub(crate) entries: u64,
    pub(crate) infos: Vec<u8>,
    pub(crate) tensors: u64,
    pub(crate) data: Vec<u8>,
}

impl Gguf {
    pub(crate) fn string(text: &str) -> Vec<u8> {
        let mut out = (text.len() as u64).to_le_bytes().to_vec();
        out.extend(text.as_bytes());
        out
    }

    /// A metadata entry of type `kind` with its value's bytes.
    pub(crate) fn meta(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.meta.extend(Self::string(key));
        self.meta.extend(kind.to_le_bytes());
        self.meta.extend(value);
        self.entries += 1;
        self
    }

    pub(crate) fn text(self, key: &str, value: &str) -> Self {
        self.meta(key, 8, &Self::string(value))
    }

    pub(crate) fn number(self, key: &str, value: u32) -> Self {
        self.meta(key, 4, &value.to_le_bytes())
    }

    /// A tensor description; `dims` innermost first.
    pub(crate) fn tensor(mut self, name: &str, dims: &[u64], kind: u32, offset: u64) -> Self {
        self.infos.extend(Self::string(name));
        self.infos.extend((dims.len() as u32).to_le_bytes());
        for d in dims {
            self.infos.extend(d.to_le_bytes());
        }
        self.infos.extend(kind.to_le_bytes());
        self.infos.extend(offset.to_le_bytes());
        self.tensors += 1;
        self
    }

    /// Bytes of the data section.
    pub(crate) fn data(mut self, n: usize) -> Self {
        self.data = vec![0; n];
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend(self.tensors.to_le_bytes());
        out.extend(self.entries.to_le_bytes());
        out.extend(&self.meta);
        out.extend(&self.infos);
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(&self.data);
        out
    }
}
