//! The restricted pickle machine: opcodes in, a tree of plain values and tensor views out.
//!
//! Nothing is called. A "global" is only ever one of the names listed in [`Global::find`]; any other name ends the
//! reading. Values live in one arena and refer to each other by number, so cycles and deep nesting cost nothing.

use std::collections::HashMap;

use super::storage::{self, Element};
use crate::error::Problem;
use crate::source::number;

/// Most values one pickle may build, in units of [`Machine::cost`] (a state dict needs some 50 per tensor).
const MAX_COST: usize = 16 << 20;
/// What a call costs: tensors hold their own sizes and key.
const CALL_COST: usize = 16;
/// Most values on the stack at once.
const MAX_STACK: usize = 4 << 20;
/// Most open marks, that is literals inside literals.
const MAX_MARKS: usize = 1 << 12;
/// Most dimensions of a tensor.
const MAX_DIMS: usize = 16;

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
    fn find(module: &str, name: &str) -> Option<Self> {
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

/// What [`run`] built.
pub(super) struct Built {
    nodes: Vec<Node>,
    pub(super) top: Id,
}

impl Built {
    /// A value.
    pub(super) fn get(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    /// Memory taken so far, in small values.
    cost: usize,
}

type Step<T> = Result<T, Problem>;

/// Runs a pickle to its end.
pub(super) fn run(bytes: &[u8]) -> Step<Built> {
    let mut machine = Machine {
        bytes,
        at: 0,
        nodes: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        cost: 0,
    };
    loop {
        if machine.step()? {
            let top = machine.pop()?;
            return Ok(Built {
                nodes: machine.nodes,
                top,
            });
        }
        if machine.cost > MAX_COST
            || machine.stack.len() > MAX_STACK
            || machine.marks.len() > MAX_MARKS
        {
            return Err(machine.bad("builds more values than any state dict needs"));
        }
    }
}

impl Machine<'_> {
    fn bad(&self, text: &str) -> Problem {
        Problem::new(format!("has a pickle that {text} (byte {})", self.at))
            .with_hint("the file is damaged, or was not written by torch.save")
    }

    fn take(&mut self, n: u64) -> Step<&[u8]> {
        let part = usize::try_from(n)
            .ok()
            .and_then(|n| self.at.checked_add(n))
            .and_then(|end| self.bytes.get(self.at..end));
        match part {
            Some(part) => {
                self.at += part.len();
                Ok(part)
            }
            None => Err(self.bad("ends too early")),
        }
    }

    fn count<const N: usize>(&mut self) -> Step<u64> {
        let value = number::<N>(self.bytes, self.at);
        self.at = self.at.saturating_add(N);
        value.ok_or_else(|| self.bad("ends too early"))
    }

    /// A line of a text argument, without its end.
    fn line(&mut self) -> Step<String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let end = rest
            .iter()
            .take(4096)
            .position(|b| *b == b'\n')
            .ok_or_else(|| self.bad("has a name without an end"))?;
        let text = std::str::from_utf8(&rest[..end])
            .map_err(|_| self.bad("has a name that is not UTF-8"))?
            .to_owned();
        self.at += end + 1;
        Ok(text)
    }

    fn text(&mut self, n: u64) -> Step<()> {
        // Surrogates that Python passes through are the only invalid bytes; such a key is no tensor name anyone uses.
        let text = String::from_utf8_lossy(self.take(n)?).into_owned();
        self.push(Node::Text(text));
        Ok(())
    }

    fn other(&mut self, n: u64) -> Step<()> {
        self.take(n)?;
        self.push(Node::Other);
        Ok(())
    }

    fn push(&mut self, node: Node) {
        self.stack.push(self.nodes.len() as Id);
        self.nodes.push(node);
        self.cost += 1;
    }

    fn pop(&mut self) -> Step<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(self.bad("takes a value that is not there"));
        }
        self.stack
            .pop()
            .ok_or_else(|| self.bad("takes a value that is not there"))
    }

    fn top(&self) -> Step<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(id) if self.stack.len() > floor => Ok(*id),
            _ => Err(self.bad("takes a value that is not there")),
        }
    }

    fn pop_mark(&mut self) -> Step<Vec<Id>> {
        let mark = self
            .marks
            .pop()
            .ok_or_else(|| self.bad("closes a literal it never opened"))?;
        Ok(self.stack.split_off(mark))
    }

    fn pop_n(&mut self, n: usize) -> Step<Vec<Id>> {
        let mut out = (0..n).map(|_| self.pop()).collect::<Step<Vec<_>>>()?;
        out.reverse();
        Ok(out)
    }

    fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    fn append(&mut self, items: Vec<Id>) -> Step<()> {
        let list = self.top()?;
        match &mut self.nodes[list as usize] {
            Node::List(to) => to.extend(items),
            Node::Other => {}
            _ => return Err(self.bad("appends to something that is not a list")),
        }
        Ok(())
    }

    fn set(&mut self, items: &[Id]) -> Step<()> {
        let (pairs, rest) = items.as_chunks::<2>();
        let dict = self.top()?;
        match &mut self.nodes[dict as usize] {
            Node::Dict(to) if rest.is_empty() => to.extend(pairs.iter().map(|[k, v]| (*k, *v))),
            _ => return Err(self.bad("sets items of something that is not a dict")),
        }
        Ok(())
    }

    fn remember(&mut self, key: u64) -> Step<()> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u64) -> Step<()> {
        let id = *self
            .memo
            .get(&key)
            .ok_or_else(|| self.bad("recalls a value it never stored"))?;
        self.stack.push(id);
        Ok(())
    }

    /// One opcode; true at the end.
    fn step(&mut self) -> Step<bool> {
        let op = self.take(1)?[0];
        match op {
            0x80 => {
                let version = self.count::<1>()?;
                if !(2..=5).contains(&version) {
                    return Err(self.bad(&format!("has protocol {version}; 2 to 5 are read")));
                }
            }
            0x95 => {
                self.count::<8>()?; // The length of a frame, only a hint for buffered readers.
            }
            b'.' => return Ok(true),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => {
                self.pop()?;
            }
            b'1' => {
                self.pop_mark()?;
            }
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'N' | 0x88 | 0x89 => self.push(Node::Other),
            b'J' => {
                let value = self.count::<4>()? as u32;
                self.push(Node::Int(i64::from(value.cast_signed())));
            }
            b'K' => {
                let value = self.count::<1>()?;
                self.push(Node::Int(value.cast_signed()));
            }
            b'M' => {
                let value = self.count::<2>()?;
                self.push(Node::Int(value.cast_signed()));
            }
            0x8a => {
                let n = self.count::<1>()?;
                self.long(n)?;
            }
            0x8b => {
                let n = self.count::<4>()?;
                self.long(n)?;
            }
            b'G' => self.other(8)?,
            b'X' => {
                let n = self.count::<4>()?;
                self.text(n)?;
            }
            0x8c => {
                let n = self.count::<1>()?;
                self.text(n)?;
            }
            0x8d => {
                let n = self.count::<8>()?;
                self.text(n)?;
            }
            b'U' => {
                let n = self.count::<1>()?;
                self.text(n)?;
            }
            b'T' => {
                let n = self.count::<4>()?;
                self.text(n)?;
            }
            b'B' => {
                let n = self.count::<4>()?;
                self.other(n)?;
            }
            b'C' => {
                let n = self.count::<1>()?;
                self.other(n)?;
            }
            0x8e | 0x96 => {
                let n = self.count::<8>()?;
                self.other(n)?;
            }
            b')' => self.push(Node::Tuple(Vec::new())),
            b't' => {
                let items = self.pop_mark()?;
                self.push(Node::Tuple(items));
            }
            0x85..=0x87 => {
                let items = self.pop_n(usize::from(op - 0x84))?;
                self.push(Node::Tuple(items));
            }
            b']' => self.push(Node::List(Vec::new())),
            b'l' => {
                let items = self.pop_mark()?;
                self.push(Node::List(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.append(items)?;
            }
            b'}' => self.push(Node::Dict(Vec::new())),
            b'd' => {
                let items = self.pop_mark()?;
                self.push(Node::Dict(Vec::new()));
                self.set(&items)?;
            }
            b's' => {
                let items = self.pop_n(2)?;
                self.set(&items)?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set(&items)?;
            }
            0x8f => self.push(Node::Other),
            0x90 => {
                let items = self.pop_mark()?;
                self.append(items)?;
            }
            0x91 => {
                self.pop_mark()?;
                self.push(Node::Other);
            }
            b'q' => {
                let key = self.count::<1>()?;
                self.remember(key)?;
            }
            b'r' => {
                let key = self.count::<4>()?;
                self.remember(key)?;
            }
            0x94 => self.remember(self.memo.len() as u64)?,
            b'h' => {
                let key = self.count::<1>()?;
                self.recall(key)?;
            }
            b'j' => {
                let key = self.count::<4>()?;
                self.recall(key)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(&module, &name)?;
            }
            0x93 => {
                let ids = self.pop_n(2)?;
                let (Node::Text(module), Node::Text(name)) = (self.node(ids[0]), self.node(ids[1]))
                else {
                    return Err(self.bad("names a global by something that is not text"));
                };
                let (module, name) = (module.clone(), name.clone());
                self.global(&module, &name)?;
            }
            b'R' => {
                let ids = self.pop_n(2)?;
                let node = self.call(ids[0], ids[1])?;
                // A dict of pairs copies its argument, which may be asked for again and again.
                self.cost += CALL_COST;
                if let Node::Dict(pairs) = &node {
                    self.cost += pairs.len();
                }
                self.push(node);
            }
            b'b' => {
                // Attributes of a dict (`_metadata` of a state dict) or a parameter; nobody reads them.
                self.pop()?;
                let id = self.top()?;
                if !matches!(
                    self.node(id),
                    Node::Dict(_) | Node::Tensor(_) | Node::Refused(_)
                ) {
                    return Err(self.bad("sets the state of an object that is not a dict"));
                }
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(storage);
            }
            _ => {
                let name = match op {
                    b'i' => " (INST)",
                    b'o' => " (OBJ)",
                    0x81 | 0x92 => " (NEWOBJ)",
                    0x82..=0x84 => " (EXT)",
                    b'P' => " (PERSID)",
                    0x97 | 0x98 => " (BUFFER)",
                    _ => "",
                };
                return Err(self.bad(&format!(
                    "has opcode {op:#04x}{name}, which no tensor needs"
                )));
            }
        }
        Ok(false)
    }

    fn long(&mut self, n: u64) -> Step<()> {
        let bytes = self.take(n)?;
        let node = match bytes {
            [] => Node::Int(0),
            [.., last] if bytes.len() <= 8 => {
                let fill = if last & 0x80 == 0 { 0 } else { 0xFF };
                let mut wide = [fill; 8];
                wide[..bytes.len()].copy_from_slice(bytes);
                Node::Int(i64::from_le_bytes(wide))
            }
            _ => Node::Other,
        };
        self.push(node);
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Step<()> {
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

    fn call(&self, function: Id, args: Id) -> Step<Node> {
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
    fn storage(&self, id: Id) -> Step<Node> {
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

/// A name from the file, cut and without control characters, for messages.
pub(super) fn shorten(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}
