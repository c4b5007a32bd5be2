//! A reader of ONNX files, as much as tests look at: protobuf's wire format by hand, apart from what writes it.

use std::collections::BTreeMap;

/// A field of a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    Int(u64),
    Bytes(Vec<u8>),
    Fixed([u8; 4]),
}

/// Fields of a message, in order.
pub fn fields(mut bytes: &[u8]) -> Vec<(u64, Field)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let (first, rest) = bytes.split_first().expect("a varint ends");
            *bytes = rest;
            value |= u64::from(first & 0x7F) << shift;
            shift += 7;
            if first & 0x80 == 0 {
                return value;
            }
        }
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let field = match tag & 7 {
            0 => Field::Int(varint(&mut bytes)),
            2 => {
                let length = usize::try_from(varint(&mut bytes)).unwrap();
                let (own, rest) = bytes.split_at(length);
                bytes = rest;
                Field::Bytes(own.to_vec())
            }
            5 => {
                let (own, rest) = bytes.split_at(4);
                bytes = rest;
                Field::Fixed(own.try_into().unwrap())
            }
            other => panic!("layout {other}"),
        };
        found.push((tag >> 3, field));
    }
    found
}

fn texts(message: &[(u64, Field)], field: u64) -> Vec<String> {
    let own = message.iter().filter(|(f, _)| *f == field);
    own.map(|(_, value)| match value {
        Field::Bytes(text) => String::from_utf8(text.clone()).unwrap(),
        other => panic!("{other:?}"),
    })
    .collect()
}

fn messages(message: &[(u64, Field)], field: u64) -> Vec<Vec<(u64, Field)>> {
    let own = message.iter().filter(|(f, _)| *f == field);
    own.map(|(_, value)| match value {
        Field::Bytes(bytes) => fields(bytes),
        other => panic!("{other:?}"),
    })
    .collect()
}

fn ints(message: &[(u64, Field)], field: u64) -> Vec<i64> {
    let own = message.iter().filter(|(f, _)| *f == field);
    own.map(|(_, value)| match value {
        Field::Int(n) => n.cast_signed(),
        other => panic!("{other:?}"),
    })
    .collect()
}

/// A tensor: lengths, number of its type, raw data or texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub dims: Vec<i64>,
    pub element: i64,
    pub raw: Vec<u8>,
    pub texts: Vec<String>,
}

impl Tensor {
    fn of(message: &[(u64, Field)]) -> Self {
        let raw = message.iter().find_map(|(field, value)| match value {
            Field::Bytes(bytes) if *field == 9 => Some(bytes.clone()),
            _ => None,
        });
        Self {
            dims: ints(message, 1),
            element: ints(message, 2)[0],
            raw: raw.unwrap_or_default(),
            texts: texts(message, 6),
        }
    }

    pub fn doubles(&self) -> Vec<f64> {
        assert_eq!(self.element, 11);
        let parts = self.raw.as_chunks::<8>().0;
        parts.iter().map(|b| f64::from_le_bytes(*b)).collect()
    }

    pub fn floats(&self) -> Vec<f32> {
        assert_eq!(self.element, 1);
        let parts = self.raw.as_chunks::<4>().0;
        parts.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }
}

/// An attribute, by what it holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attribute {
    pub ints: Vec<i64>,
    pub texts: Vec<String>,
    pub doubles: Vec<f64>,
}

#[derive(Debug, Clone)]
pub struct Node {
    pub op: String,
    pub domain: String,
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    pub attributes: BTreeMap<String, Attribute>,
}

#[derive(Debug)]
pub struct Model {
    pub version: i64,
    pub operators: Vec<(String, i64)>,
    /// Name, and type with shape.
    pub inputs: Vec<(String, String)>,
    pub outputs: Vec<(String, String)>,
    pub nodes: Vec<Node>,
    pub weights: BTreeMap<String, Tensor>,
    pub metadata: BTreeMap<String, String>,
}

fn attribute(message: &[(u64, Field)]) -> (String, Attribute) {
    let name = texts(message, 1).concat();
    let tensor = messages(message, 5);
    let found = match ints(message, 20)[0] {
        1 => Attribute::default(),
        2 => Attribute {
            ints: ints(message, 3),
            ..Attribute::default()
        },
        3 => Attribute {
            texts: texts(message, 4),
            ..Attribute::default()
        },
        4 => Attribute {
            doubles: Tensor::of(&tensor[0]).doubles(),
            ..Attribute::default()
        },
        7 => Attribute {
            ints: ints(message, 8),
            ..Attribute::default()
        },
        8 => Attribute {
            texts: texts(message, 9),
            ..Attribute::default()
        },
        other => panic!("an attribute of type {other}"),
    };
    (name, found)
}

fn port(message: &[(u64, Field)]) -> (String, String) {
    let tensor = &messages(&messages(message, 2)[0], 1)[0];
    let dims = messages(&messages(tensor, 2)[0], 1);
    let dims = dims.iter().map(|dim| match texts(dim, 2).first() {
        Some(name) => name.clone(),
        None => ints(dim, 1)[0].to_string(),
    });
    let element = match ints(tensor, 1)[0] {
        1 => "float",
        7 => "int64",
        8 => "string",
        11 => "double",
        other => panic!("element {other}"),
    };
    let dims: Vec<String> = dims.collect();
    (
        texts(message, 1).concat(),
        format!("{element} [{}]", dims.join(", ")),
    )
}

impl Model {
    pub fn of(bytes: &[u8]) -> Self {
        let model = fields(bytes);
        let graph = &messages(&model, 7)[0];
        let node = |m: &Vec<(u64, Field)>| Node {
            op: texts(m, 4).concat(),
            domain: texts(m, 7).concat(),
            inputs: texts(m, 1),
            outputs: texts(m, 2),
            attributes: messages(m, 5).iter().map(|m| attribute(m)).collect(),
        };
        let weight = |m: &Vec<(u64, Field)>| (texts(m, 8).concat(), Tensor::of(m));
        let set = |m: &Vec<(u64, Field)>| (texts(m, 1).concat(), ints(m, 2)[0]);
        let said = |m: &Vec<(u64, Field)>| (texts(m, 1).concat(), texts(m, 2).concat());
        let all = messages(graph, 5);
        let weights: BTreeMap<String, Tensor> = all.iter().map(weight).collect();
        assert_eq!(weights.len(), all.len(), "two weights of one name");
        Self {
            version: ints(&model, 1)[0],
            operators: messages(&model, 8).iter().map(set).collect(),
            inputs: messages(graph, 11).iter().map(|m| port(m)).collect(),
            outputs: messages(graph, 12).iter().map(|m| port(m)).collect(),
            nodes: messages(graph, 1).iter().map(node).collect(),
            weights,
            metadata: messages(&model, 14).iter().map(said).collect(),
        }
    }

    /// Nodes of an operator.
    pub fn all(&self, op: &str) -> Vec<&Node> {
        self.nodes.iter().filter(|n| n.op == op).collect()
    }

    /// Whether every value is made once, before it is read; and all that is asked for is made.
    pub fn is_sound(&self) {
        let given = self.inputs.iter().map(|(name, _)| name);
        let mut known: std::collections::BTreeSet<&String> =
            given.chain(self.weights.keys()).collect();
        for node in &self.nodes {
            for input in &node.inputs {
                assert!(known.contains(input), "{} reads `{input}`", node.op);
            }
            for output in &node.outputs {
                assert!(known.insert(output), "{} gives `{output}` again", node.op);
            }
            let ml = ["LabelEncoder", "TreeEnsembleRegressor"].contains(&&*node.op);
            assert_eq!(node.domain, if ml { "ai.onnx.ml" } else { "" });
        }
        for (name, _) in &self.outputs {
            assert!(known.contains(name), "nothing gives `{name}`");
        }
    }
}
