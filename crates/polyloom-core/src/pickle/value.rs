//! What a pickle can build, and the only names it can mention.

use super::storage::{self, Element};

/// Number of a value in the arena.
pub(super) type Id = u32;

/// A value that a pickle built.
#[derive(Debug)]
pub(super) enum Node {
    Int(i64),
    Text(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Storage(Box<Storage>),
    Tensor(Box<View>),
    /// A tensor of a kind that cannot be read, and why.
    Refused(&'static str),
    Global(Global),
    /// A harmless value nobody looks at (None, booleans, floats, bytes, sets, devices).
    Other,
}

/// A storage that the archive holds as an entry.
#[derive(Debug, Clone)]
pub(super) struct Storage {
    pub(super) element: Element,
    pub(super) key: String,
    /// Elements, or bytes for an untyped storage.
    pub(super) len: u64,
}

/// A tensor: a strided view of a storage.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) storage: Storage,
    pub(super) offset: u64,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// Every name that a pickle may mention.
#[derive(Debug, Clone, Copy)]
pub(super) enum Global {
    OrderedDict,
    Size,
    /// `_rebuild_tensor`, `_rebuild_tensor_v2`; `_rebuild_tensor_v3` carries its type as an argument.
    RebuildTensor {
        typed: bool,
    },
    RebuildParameter,
    /// A constructor of tensors that have no plain elements.
    RebuildRefused(&'static str),
    Element(Element),
    /// A constant or a constructor of a harmless value (`torch.device`).
    Harmless,
}

impl Global {
    /// The meaning of a name; `None` for all that a state dict has no need of.
    pub(super) fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch", "Size") => Self::Size,
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => {
                Self::RebuildTensor { typed: false }
            }
            ("torch._utils", "_rebuild_tensor_v3") => Self::RebuildTensor { typed: true },
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                Self::RebuildParameter
            }
            ("torch._utils", "_rebuild_qtensor") => Self::RebuildRefused("is quantised"),
            ("torch._utils", "_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor") => {
                Self::RebuildRefused("is sparse")
            }
            ("torch._utils", "_rebuild_nested_tensor") => Self::RebuildRefused("is nested"),
            ("torch._utils", "_rebuild_meta_tensor_no_storage") => {
                Self::RebuildRefused("is on the meta device and has no data")
            }
            ("torch", "device" | "per_tensor_affine" | "per_channel_affine")
            | ("torch.serialization", "_get_layout") => Self::Harmless,
            ("torch" | "torch.cuda" | "torch.storage", name) => {
                Self::Element(storage::element(name)?)
            }
            _ => return None,
        })
    }
}

/// A name from the file, cut and without control characters, for messages.
pub(super) fn shorten(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}
