//! Plans as graphs of tools: which tools are called, and which result goes where.

use std::collections::BTreeSet;

/// Tools of a plan, and links from a tool to the one that uses its result; by name, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolGraph {
    /// Names of the tools.
    pub nodes: BTreeSet<String>,
    /// Names of source and target.
    pub links: BTreeSet<(String, String)>,
}

/// Tools and links found, counted over examples. Every (example, tool) and (example, link) is one decision, as in
/// TaskBench's `evaluate.py`; a predicted tool that the task does not have counts as wrong, where TaskBench passes over it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ToolGraphCounts {
    /// Hits, true, predicted.
    nodes: [u64; 3],
    links: [u64; 3],
}

impl ToolGraphCounts {
    /// The counts of one example.
    pub fn of(truth: &ToolGraph, predicted: &ToolGraph) -> Self {
        fn count<T: Ord>(truth: &BTreeSet<T>, predicted: &BTreeSet<T>) -> [u64; 3] {
            let hits = truth.intersection(predicted).count();
            [hits, truth.len(), predicted.len()].map(|n| n as u64)
        }
        Self {
            nodes: count(&truth.nodes, &predicted.nodes),
            links: count(&truth.links, &predicted.links),
        }
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        for (a, b) in self.nodes.iter_mut().zip(other.nodes) {
            *a += b;
        }
        for (a, b) in self.links.iter_mut().zip(other.links) {
            *a += b;
        }
    }

    /// F1 of the tools, all examples together (micro); `NaN` where there is none.
    pub fn node_f1(&self) -> f64 {
        f1(self.nodes)
    }

    /// F1 of the links, all examples together; `NaN` where there is none.
    pub fn link_f1(&self) -> f64 {
        f1(self.links)
    }
}

fn f1([hits, truth, predicted]: [u64; 3]) -> f64 {
    2.0 * hits as f64 / (truth + predicted) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(nodes: &[&str], links: &[(&str, &str)]) -> ToolGraph {
        let link = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
        ToolGraph {
            nodes: nodes.iter().map(|n| (*n).to_owned()).collect(),
            links: links.iter().map(link).collect(),
        }
    }

    #[test]
    fn by_hand() {
        let truth = graph(
            &["cut", "blur", "save"],
            &[("cut", "blur"), ("blur", "save")],
        );
        let said = graph(&["cut", "save", "mail", "cut"], &[("cut", "save")]);
        let mut all = ToolGraphCounts::of(&truth, &said);
        assert_eq!((all.node_f1(), all.link_f1()), (4.0 / 6.0, 0.0));
        all.merge(&ToolGraphCounts::of(&truth, &truth));
        assert_eq!((all.node_f1(), all.link_f1()), (10.0 / 12.0, 4.0 / 7.0));
        let none = ToolGraphCounts::of(&graph(&[], &[]), &graph(&[], &[]));
        assert!(none.node_f1().is_nan());
    }
}
