//! Places of numbers in sorted lists, by halving: what scales numbers by rank, and a calibrating curve, need.

use super::graph::Graph;
use super::proto::Element;

/// Sorted lists, one for each column that is looked up in them.
pub(super) struct Lists<'a> {
    lists: Vec<&'a [f64]>,
    /// Numbers of a list with what fills it up: a power of two that is more than any list has.
    wide: usize,
    table: String,
}

impl<'a> Lists<'a> {
    /// Puts lists into a graph; none is empty, all ascend.
    pub fn new(graph: &mut Graph, lists: Vec<&'a [f64]>) -> Self {
        let longest = lists.iter().map(|l| l.len()).max().unwrap_or(0);
        let wide = (longest + 1).next_power_of_two();
        let mut all = vec![f64::INFINITY; lists.len() * wide];
        for (to, list) in all.chunks_exact_mut(wide).zip(&lists) {
            to[..list.len()].copy_from_slice(list);
        }
        let table = graph.doubles(&[all.len()], &all);
        Self { lists, wide, table }
    }

    /// A whole number for every list, `[1, lists]`, or `[1]` of one.
    fn each(&self, graph: &mut Graph, of: impl Fn(usize, &[f64]) -> i64) -> String {
        let all = self.lists.iter().enumerate();
        let all: Vec<i64> = all.map(|(i, list)| of(i, list)).collect();
        match all.len() {
            1 => graph.ints(&[1], &all),
            n => graph.ints(&[1, n], &all),
        }
    }

    /// How many numbers each list has.
    pub fn lengths(&self, graph: &mut Graph) -> String {
        self.each(graph, |_, list| list.len() as i64)
    }

    /// How many numbers of its list are `test` (`Less`, `LessOrEqual`) than each element of `x [.., lists]`, which is finite.
    pub fn count(&self, graph: &mut Graph, x: &str, test: &str) -> String {
        let mut at: Option<String> = None;
        let mut step = self.wide / 2;
        while step > 0 {
            // The number before the place that would be reached.
            let before = self.each(graph, |i, _| (i * self.wide + step) as i64 - 1);
            let place = match &at {
                Some(at) => graph.call("Add", &[at, &before]),
                None => before,
            };
            let value = graph.gather(&self.table, &place, 0);
            let passed = graph.call(test, &[&value, x]);
            let passed = graph.cast(&passed, Element::Int);
            let step_by = graph.int(step as i64);
            let gone = match step {
                1 => passed,
                _ => graph.call("Mul", &[&passed, &step_by]),
            };
            at = Some(match at {
                Some(at) => graph.call("Add", &[&at, &gone]),
                None => gone,
            });
            step /= 2;
        }
        at.unwrap_or_else(|| graph.int(0))
    }

    /// The numbers at places within their lists.
    pub fn at(&self, graph: &mut Graph, places: &str) -> String {
        let first = self.each(graph, |i, _| (i * self.wide) as i64);
        let places = graph.call("Add", &[places, &first]);
        graph.gather(&self.table, &places, 0)
    }

    /// Places before and after what a count says, both within their list: equal beyond its ends.
    pub fn around(&self, graph: &mut Graph, count: &str) -> [String; 2] {
        let one = graph.int(1);
        let zero = graph.int(0);
        let below = graph.call("Sub", &[count, &one]);
        let below = graph.call("Max", &[&below, &zero]);
        let last = self.each(graph, |_, list| list.len() as i64 - 1);
        let above = graph.call("Min", &[count, &last]);
        [below, above]
    }
}
