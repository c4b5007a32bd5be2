//! "Did you mean": the nearest valid names.

/// Up to `count` names within a distance that a typo explains, nearest first, ties in the order given.
pub fn nearest<'a>(typed: &str, names: &[&'a str], count: usize) -> Vec<&'a str> {
    let mut found: Vec<(usize, usize, &str)> = names
        .iter()
        .enumerate()
        .map(|(i, name)| {
            (
                distance(&typed.to_lowercase(), &name.to_lowercase()),
                i,
                *name,
            )
        })
        .filter(|(d, _, name)| {
            *d <= (name.chars().count().max(typed.chars().count()) / 3).max(1)
                || (typed.len() >= 3 && name.contains(typed))
        })
        .collect();
    found.sort_by_key(|(d, i, _)| (*d, *i));
    found.into_iter().take(count).map(|f| f.2).collect()
}

/// Edit distance with transpositions of neighbours (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1)
                .min(rows[i][j - 1] + 1)
                .min(rows[i - 1][j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typos_are_near_and_strangers_are_not() {
        let names = ["density", "weight", "lambda", "normalize"];
        assert_eq!(nearest("densty", &names, 3), ["density"]);
        assert_eq!(nearest("wieght", &names, 3), ["weight"]);
        assert!(nearest("flavour", &names, 3).is_empty());
        assert_eq!(distance("ab", "ba"), 1);
    }
}
