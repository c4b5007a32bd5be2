//! Which rows a step sees: tasks by their shares, rows of a task in a new order every epoch.

use polyloom::tasks::sample::Draw;
use polyloom_core::rng::Stream;

/// Draws rows of several tasks. What is drawn depends on the seed and on how many rows of each task were drawn before,
/// so a run goes on from these numbers alone.
#[derive(Debug, Clone)]
pub struct Sampler {
    /// Rows of each task.
    sizes: Vec<usize>,
    /// Which task a row is of.
    tasks: Draw,
    seed: u64,
    /// Rows drawn in all.
    drawn: u64,
    /// Rows drawn of each task.
    of_task: Vec<u64>,
    /// The order of the epoch that each task is in.
    orders: Vec<(u64, Vec<u32>)>,
}

impl Sampler {
    /// Of tasks with rows and shares.
    #[must_use]
    pub fn new(sizes: Vec<usize>, shares: &[f64], seed: u64) -> Self {
        let n = sizes.len();
        Self {
            sizes,
            tasks: Draw::new(shares, Stream::new(seed, "train tasks", 0)),
            seed,
            drawn: 0,
            of_task: vec![0; n],
            orders: vec![(u64::MAX, Vec::new()); n],
        }
    }

    /// Rows of the next pass: for each task the places of its rows, in the order of the tasks. A single task's epoch ends
    /// with a smaller pass when rows are left over.
    pub fn next(&mut self, rows: usize) -> Vec<Vec<u32>> {
        let mut found = vec![Vec::new(); self.sizes.len()];
        let mut rows = rows;
        if let [size] = self.sizes[..] {
            let left = size - (self.of_task[0] % size as u64) as usize;
            rows = rows.min(left);
        }
        for _ in 0..rows {
            let task = self.tasks.at(self.drawn);
            self.drawn += 1;
            found[task].push(self.row(task));
        }
        found
    }

    /// Rows of the next pass, so many of each task.
    pub fn next_of(&mut self, rows: &[usize]) -> Vec<Vec<u32>> {
        self.drawn += rows.iter().sum::<usize>() as u64;
        let of = |(task, n): (usize, &usize)| (0..*n).map(|_| self.row(task)).collect();
        rows.iter().enumerate().map(of).collect()
    }

    /// The next row of a task.
    fn row(&mut self, task: usize) -> u32 {
        let n = self.sizes[task] as u64;
        let (epoch, place) = (self.of_task[task] / n, self.of_task[task] % n);
        self.of_task[task] += 1;
        if self.orders[task].0 != epoch {
            self.orders[task] = (epoch, order(self.sizes[task], self.seed, task, epoch));
        }
        self.orders[task].1[place as usize]
    }

    /// How many rows were drawn: in all, and of each task.
    #[must_use]
    pub fn counts(&self) -> (u64, &[u64]) {
        (self.drawn, &self.of_task)
    }

    /// Goes on from counts.
    pub fn restore(&mut self, drawn: u64, of_task: Vec<u64>) {
        (self.drawn, self.of_task) = (drawn, of_task);
    }
}

/// Rows of a pass shared out by the tasks' shares: at least one each, the rest to the largest remainders (of equals the first).
/// `None` where there are fewer rows than tasks.
#[must_use]
pub fn shared_out(rows: usize, shares: &[f64]) -> Option<Vec<usize>> {
    let rest = rows.checked_sub(shares.len())?;
    let total: f64 = shares.iter().sum();
    let wanted: Vec<f64> = shares
        .iter()
        .map(|s| s / total * rows as f64 - 1.0)
        .collect();
    let mut found = vec![1; shares.len()];
    for _ in 0..rest {
        let left = |t: usize| wanted[t] - (found[t] - 1) as f64;
        let most = (0..shares.len()).reduce(|a, b| if left(b) > left(a) { b } else { a })?;
        found[most] += 1;
    }
    Some(found)
}

/// A shuffled order of rows.
pub(crate) fn order(rows: usize, seed: u64, task: usize, epoch: u64) -> Vec<u32> {
    let stream = Stream::new(seed, "train rows", (task as u64) << 32 | epoch);
    shuffled(rows, stream)
}

/// Numbers in an order that a stream draws (Fisher and Yates).
pub(crate) fn shuffled(count: usize, stream: Stream) -> Vec<u32> {
    let mut order: Vec<u32> = (0..count as u32).collect();
    for i in (1..count).rev() {
        // The bias of a remainder of 64 bits cannot be seen.
        let j = (stream.bits(i as u64) % (i as u64 + 1)) as usize;
        order.swap(i, j);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_sees_every_row_once_and_counts_are_enough_to_go_on() {
        let mut s = Sampler::new(vec![10], &[1.0], 7);
        let mut seen: Vec<u32> = (0..3).flat_map(|_| s.next(4).remove(0)).collect();
        assert_eq!(seen.len(), 10);
        let first = seen.clone();
        seen.sort_unstable();
        assert_eq!(seen, (0..10).collect::<Vec<u32>>());
        let counts = (s.counts().0, s.counts().1.to_vec());
        let rest = s.next(4);
        let mut again = Sampler::new(vec![10], &[1.0], 7);
        again.restore(counts.0, counts.1);
        assert_eq!(again.next(4), rest);
        assert_ne!(first[..4], rest[0][..]);
    }

    #[test]
    fn rows_are_shared_out() {
        assert_eq!(shared_out(10, &[0.5, 0.3, 0.2]), Some(vec![5, 3, 2]));
        assert_eq!(shared_out(4, &[0.97, 0.02, 0.01]), Some(vec![2, 1, 1]));
        assert_eq!(shared_out(2, &[0.5, 0.3, 0.2]), None);
        let mut s = Sampler::new(vec![4, 3], &[0.5, 0.5], 1);
        let drawn: Vec<_> = (0..2).map(|_| s.next_of(&[2, 1])).collect();
        let mut first: Vec<u32> = drawn.iter().flat_map(|d| d[0].clone()).collect();
        first.sort_unstable();
        assert_eq!((first, s.counts()), (vec![0, 1, 2, 3], (6, &[4, 2][..])));
    }

    #[test]
    fn tasks_come_by_their_shares() {
        let mut s = Sampler::new(vec![100, 10], &[0.25, 0.75], 1);
        let mut counts = [0; 2];
        for _ in 0..1000 {
            let drawn = s.next(8);
            assert_eq!(drawn.iter().map(Vec::len).sum::<usize>(), 8);
            counts[0] += drawn[0].len();
            counts[1] += drawn[1].len();
        }
        assert!(
            (counts[0] as f64 / 8000.0 - 0.25).abs() < 0.02,
            "{counts:?}"
        );
    }
}
