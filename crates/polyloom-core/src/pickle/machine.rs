//! The restricted pickle machine: opcodes in, a tree of plain values and tensor views out.
//!
//! Nothing is called. A "global" is only ever one of the names listed in `value.rs`; any other name ends the reading.
//! Values live in one arena and refer to each other by number, so cycles and deep nesting cost nothing.

use std::collections::HashMap;

use super::value::{Id, Node};
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

/// A pickle half read.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    /// Memory taken so far, in small values.
    cost: usize,
}

/// What one step gives, or why it cannot.
pub(super) type Step<T> = Result<T, Problem>;

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
    pub(super) fn bad(&self, text: &str) -> Problem {
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

    pub(super) fn push(&mut self, node: Node) {
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

    pub(super) fn node(&self, id: Id) -> &Node {
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
}
