//! An order in which similar experts stand together.

/// One step of the clustering: two groups that were joined.
#[derive(Debug, Clone, PartialEq)]
pub struct Join {
    /// Experts of the group with the lower first expert.
    pub left: Vec<usize>,
    /// Experts of the other group.
    pub right: Vec<usize>,
    /// Mean distance of all pairs across the two groups.
    pub distance: f64,
}

/// Average-linkage clustering (UPGMA).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Clusters {
    /// All experts, those of one group side by side.
    pub order: Vec<usize>,
    /// The joins, nearest first.
    pub joins: Vec<Join>,
}

/// Clusters `n` things by `distance(a, b)` (symmetric): the two groups with the smallest mean distance are joined until
/// one is left. Of equal distances the groups with the lowest members win, so the order is a function of the distances.
pub fn cluster(n: usize, distance: impl Fn(usize, usize) -> f64) -> Clusters {
    // Kept sorted by the lowest member.
    let mut groups: Vec<Vec<usize>> = (0..n).map(|i| vec![i]).collect();
    let mut joins = Vec::new();
    let mean = |a: &[usize], b: &[usize]| {
        let sum: f64 = a
            .iter()
            .flat_map(|&i| b.iter().map(move |&j| (i.min(j), i.max(j))))
            .map(|(i, j)| distance(i, j))
            .sum();
        sum / (a.len() * b.len()) as f64
    };
    while groups.len() > 1 {
        let (mut best, mut at) = (f64::INFINITY, (0, 1));
        for a in 0..groups.len() {
            for b in a + 1..groups.len() {
                let d = mean(&groups[a], &groups[b]);
                if d < best {
                    (best, at) = (d, (a, b));
                }
            }
        }
        let right = groups.remove(at.1);
        joins.push(Join {
            left: groups[at.0].clone(),
            right: right.clone(),
            distance: best,
        });
        groups[at.0].extend(right);
    }
    Clusters {
        order: groups.pop().unwrap_or_default(),
        joins,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn average_linkage_by_hand() {
        // Points on a line at 0, 10, 1, 12: (0, 2) join at 1, (1, 3) at 2, and the groups at (10 + 12 + 9 + 11) / 4.
        let at = [0.0f64, 10.0, 1.0, 12.0];
        let c = cluster(4, |a, b| (at[a] - at[b]).abs());
        assert_eq!(c.order, [0, 2, 1, 3]);
        let steps: Vec<f64> = c.joins.iter().map(|j| j.distance).collect();
        assert_eq!(steps, [1.0, 2.0, 10.5]);
        assert_eq!(
            (&c.joins[2].left, &c.joins[2].right),
            (&vec![0, 2], &vec![1, 3])
        );
    }

    #[test]
    fn equal_distances_keep_the_order() {
        assert_eq!(cluster(5, |_, _| 0.5).order, [0, 1, 2, 3, 4]);
        assert_eq!(cluster(1, |_, _| 0.0).order, [0]);
        assert_eq!(cluster(0, |_, _| 0.0).order, Vec::<usize>::new());
    }
}
