//! YAML documents as values, with the line of every key.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::Spanned;

use crate::error::Result;
use crate::recipe::yaml;

/// A document.
pub(super) struct Tree {
    /// Its content.
    pub value: Value,
    /// Line (from 1) of every key and list entry, by its path: `/models/0/parameters/weight`.
    pub lines: BTreeMap<String, u64>,
}

/// Reads all documents of a text; `place` names it in messages.
///
/// # Errors
/// See [`yaml::read`].
pub(super) fn documents(text: &str, place: &str) -> Result<Vec<Tree>> {
    let nodes: Vec<Spanned<Node>> = yaml::read(text, place)?;
    Ok(nodes
        .into_iter()
        .map(|node| {
            let mut lines = BTreeMap::new();
            let line = node.referenced.line();
            lines.insert(String::new(), line);
            let value = node.value.flatten("", &mut lines);
            Tree { value, lines }
        })
        .collect())
}

/// The path of a key inside a path; a slash in a key cannot be mistaken for a step.
pub(super) fn join(path: &str, key: &str) -> String {
    format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"))
}

enum Node {
    Scalar(Value),
    List(Vec<Spanned<Self>>),
    Map(Vec<(Spanned<String>, Self)>),
}

impl Node {
    fn flatten(self, path: &str, lines: &mut BTreeMap<String, u64>) -> Value {
        match self {
            Self::Scalar(value) => value,
            Self::List(items) => items
                .into_iter()
                .enumerate()
                .map(|(i, item)| {
                    let path = join(path, &i.to_string());
                    lines.insert(path.clone(), item.referenced.line());
                    item.value.flatten(&path, lines)
                })
                .collect(),
            Self::Map(pairs) => {
                let mut map = Map::new();
                for (key, value) in pairs {
                    let path = join(path, &key.value);
                    lines.insert(path.clone(), key.referenced.line());
                    let value = value.flatten(&path, lines);
                    map.insert(key.value, value);
                }
                Value::Object(map)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Build;

        impl<'de> Visitor<'de> for Build {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("any YAML value")
            }
            fn visit_bool<E>(self, v: bool) -> std::result::Result<Node, E> {
                Ok(Node::Scalar(v.into()))
            }
            fn visit_i64<E>(self, v: i64) -> std::result::Result<Node, E> {
                Ok(Node::Scalar(v.into()))
            }
            fn visit_u64<E>(self, v: u64) -> std::result::Result<Node, E> {
                Ok(Node::Scalar(v.into()))
            }
            fn visit_f64<E>(self, v: f64) -> std::result::Result<Node, E> {
                Ok(Node::Scalar(v.into()))
            }
            fn visit_str<E>(self, v: &str) -> std::result::Result<Node, E> {
                Ok(Node::Scalar(v.into()))
            }
            fn visit_unit<E>(self) -> std::result::Result<Node, E> {
                Ok(Node::Scalar(Value::Null))
            }
            fn visit_none<E>(self) -> std::result::Result<Node, E> {
                Ok(Node::Scalar(Value::Null))
            }
            fn visit_some<D: Deserializer<'de>>(self, d: D) -> std::result::Result<Node, D::Error> {
                Node::deserialize(d)
            }
            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> std::result::Result<Node, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Node::List(items))
            }
            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Node, A::Error> {
                let mut pairs = Vec::new();
                while let Some(key) = map.next_key()? {
                    pairs.push((key, map.next_value()?));
                }
                Ok(Node::Map(pairs))
            }
        }
        deserializer.deserialize_any(Build)
    }
}
