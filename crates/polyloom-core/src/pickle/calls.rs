//! What the allowed names make of their arguments.

use super::machine::{Machine, Step};
use super::value::{Global, Id, Node, Storage, View, shorten};
use crate::error::Problem;

/// Most dimensions of a tensor.
const MAX_DIMS: usize = 16;

impl Machine<'_> {
    /// Pushes the meaning of a name, or refuses it.
    pub(super) fn global(&mut self, module: &str, name: &str) -> Step<()> {
        let Some(global) = Global::find(module, name) else {
            return Err(Problem::new(format!(
                "has a pickle that uses `{}.{}`, which is no part of a tensor; nothing was run",
                shorten(module),
                shorten(name)
            ))
            .with_hint(
                "if you trust the file, load it with its author's tools and save only the state \
                 dict, best as safetensors",
            ));
        };
        self.push(Node::Global(global));
        Ok(())
    }

    /// What `function(*args)` would have been.
    pub(super) fn call(&self, function: Id, args: Id) -> Step<Node> {
        let Node::Global(global) = self.node(function) else {
            return Err(self.bad("calls something that is not a name"));
        };
        let Node::Tuple(args) = self.node(args) else {
            return Err(self.bad("calls a name without arguments"));
        };
        match global {
            Global::OrderedDict => match args.as_slice() {
                [] => Ok(Node::Dict(Vec::new())),
                [pairs] => {
                    let Node::List(pairs) = self.node(*pairs) else {
                        return Err(self.bad("makes a dict of something that is not a list"));
                    };
                    let pairs = pairs.iter().map(|pair| match self.node(*pair) {
                        Node::Tuple(kv) | Node::List(kv) if kv.len() == 2 => Ok((kv[0], kv[1])),
                        _ => Err(self.bad("makes a dict of something that is not pairs")),
                    });
                    Ok(Node::Dict(pairs.collect::<Step<_>>()?))
                }
                _ => Err(self.bad("makes a dict of several arguments")),
            },
            Global::Size => match args.as_slice() {
                [items] => match self.node(*items) {
                    Node::Tuple(items) | Node::List(items) if items.len() <= MAX_DIMS => {
                        Ok(Node::Tuple(items.clone()))
                    }
                    _ => Err(self.bad("makes a size of something that is not a tuple")),
                },
                _ => Err(self.bad("makes a size of something that is not a tuple")),
            },
            Global::RebuildTensor { typed } => self.rebuild(args, *typed),
            Global::RebuildParameter => match args.first().map(|id| self.node(*id)) {
                Some(Node::Tensor(view)) => Ok(Node::Tensor(view.clone())),
                Some(Node::Refused(why)) => Ok(Node::Refused(why)),
                _ => Err(self.bad("makes a parameter of something that is not a tensor")),
            },
            Global::RebuildRefused(why) => Ok(Node::Refused(why)),
            Global::Harmless => Ok(Node::Other),
            Global::Element(_) => Err(self.bad("calls an element type")),
        }
    }

    /// `(storage, offset, size, strides, requires_grad, hooks[, metadata])`; v3 has the type before the metadata.
    fn rebuild(&self, args: &[Id], typed: bool) -> Step<Node> {
        let [storage, offset, shape, strides, rest @ ..] = args else {
            return Err(self.bad("makes a tensor of too few arguments"));
        };
        let Node::Storage(storage) = self.node(*storage) else {
            return Err(self.bad("makes a tensor of something that is not a storage"));
        };
        let mut storage = Storage::clone(storage);
        let mut metadata = rest.get(2);
        if typed {
            let Some(Node::Global(Global::Element(element))) = metadata.map(|id| self.node(*id))
            else {
                return Err(self.bad("makes a tensor without an element type"));
            };
            let bytes = storage.element.size().unwrap_or(1);
            storage.len = storage
                .len
                .checked_mul(bytes)
                .ok_or_else(|| self.bad("has a storage that is too long"))?
                / element.size().unwrap_or(1);
            storage.element = *element;
            metadata = rest.get(3);
        }
        // Conjugate and negative bits: the stored numbers are not the tensor's.
        if let Some(Node::Dict(bits)) = metadata.map(|id| self.node(*id))
            && !bits.is_empty()
        {
            return Ok(Node::Refused("is a lazily negated or conjugated view"));
        }
        let Node::Int(offset) = self.node(*offset) else {
            return Err(self.bad("makes a tensor whose offset is not a number"));
        };
        let offset = u64::try_from(*offset)
            .map_err(|_| self.bad("makes a tensor with a negative offset"))?;
        let (shape, strides) = (self.sizes(*shape)?, self.sizes(*strides)?);
        if shape.len() != strides.len() {
            return Err(self.bad("makes a tensor with more or fewer strides than dimensions"));
        }
        Ok(Node::Tensor(Box::new(View {
            storage,
            offset,
            shape,
            strides,
        })))
    }

    fn sizes(&self, id: Id) -> Step<Vec<usize>> {
        let (Node::Tuple(items) | Node::List(items)) = self.node(id) else {
            return Err(self.bad("makes a tensor whose size is not a tuple"));
        };
        if items.len() > MAX_DIMS {
            return Err(self.bad("makes a tensor of too many dimensions"));
        }
        items
            .iter()
            .map(|id| match self.node(*id) {
                Node::Int(n) => usize::try_from(*n).ok(),
                _ => None,
            })
            .collect::<Option<_>>()
            .ok_or_else(|| self.bad("makes a tensor whose size is not made of numbers"))
    }

    /// `('storage', type, key, device, length)`.
    pub(super) fn storage(&self, id: Id) -> Step<Node> {
        let bad = || self.bad("refers to something outside that is not a storage");
        let Node::Tuple(items) = self.node(id) else {
            return Err(bad());
        };
        let [kind, element, key, _, len] = items.as_slice() else {
            return Err(bad());
        };
        match (
            self.node(*kind),
            self.node(*element),
            self.node(*key),
            self.node(*len),
        ) {
            (
                Node::Text(kind),
                Node::Global(Global::Element(element)),
                Node::Text(key),
                Node::Int(len),
            ) if kind == "storage" && key.len() <= 64 => Ok(Node::Storage(Box::new(Storage {
                element: *element,
                key: key.clone(),
                len: u64::try_from(*len).map_err(|_| bad())?,
            }))),
            _ => Err(bad()),
        }
    }
}
