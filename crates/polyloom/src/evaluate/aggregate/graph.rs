//! Strongly connected components.

/// Strongly connected components of a directed graph, each sorted, in reverse topological order: a component comes after
/// every component that it reaches. Tarjan's algorithm (1972) with its own stack; O(nodes + edges).
///
/// `next(node, k)` is the k-th node that `node` points to, `None` past the last one.
pub fn components(n: usize, next: impl Fn(usize, usize) -> Option<usize>) -> Vec<Vec<usize>> {
    const NEW: usize = usize::MAX;
    let mut index = vec![NEW; n];
    let mut low = vec![0; n];
    let mut waiting = vec![false; n];
    let (mut stack, mut path) = (Vec::new(), Vec::new());
    let (mut found, mut count) = (Vec::new(), 0);
    for root in 0..n {
        if index[root] != NEW {
            continue;
        }
        path.push((root, 0));
        while let Some((node, edge)) = path.last_mut() {
            let node = *node;
            if *edge == 0 {
                (index[node], low[node]) = (count, count);
                count += 1;
                stack.push(node);
                waiting[node] = true;
            }
            let target = next(node, *edge);
            *edge += 1;
            match target {
                Some(t) if index[t] == NEW => path.push((t, 0)),
                Some(t) if waiting[t] => low[node] = low[node].min(index[t]),
                Some(_) => {}
                None => {
                    path.pop();
                    if let Some(&(parent, _)) = path.last() {
                        low[parent] = low[parent].min(low[node]);
                    }
                    if low[node] == index[node] {
                        let first = stack.iter().rposition(|&s| s == node).unwrap_or(0);
                        let mut component = stack.split_off(first);
                        component.iter().for_each(|&c| waiting[c] = false);
                        component.sort_unstable();
                        found.push(component);
                    }
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(edges: &[&[usize]]) -> Vec<Vec<usize>> {
        components(edges.len(), |node, k| edges[node].get(k).copied())
    }

    #[test]
    fn sinks_come_first() {
        assert_eq!(
            of(&[&[1], &[2, 0], &[3], &[]]),
            [vec![3], vec![2], vec![0, 1]]
        );
        assert_eq!(of(&[&[1], &[0], &[3], &[2]]), [vec![0, 1], vec![2, 3]]);
        assert_eq!(of(&[&[1], &[2], &[0]]), [vec![0, 1, 2]]);
        assert_eq!(of(&[&[0]]), [vec![0]]);
        assert!(of(&[]).is_empty());
    }

    #[test]
    fn a_long_path_needs_no_deep_recursion() {
        let n = 200_000;
        let line = components(n, |node, k| (k == 0 && node + 1 < n).then_some(node + 1));
        assert_eq!(line.len(), n);
        let ring = components(n, |node, k| (k == 0).then_some((node + 1) % n));
        assert_eq!(ring.len(), 1);
    }
}
