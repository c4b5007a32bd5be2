//! Labels of several tasks in one list.

use super::data::{Sample, wrong};
use crate::error::Result;

/// Labels, ordered by row and task.
pub(super) struct Labelled {
    pub row: Vec<u32>,
    pub task: Vec<u32>,
    pub label: Vec<f64>,
    pub weight: Vec<f64>,
    /// Where the labels of each row begin, and where the last ends.
    pub starts: Vec<u32>,
}

impl Labelled {
    /// Labels of rows that have a weight; of each task less a mean and divided by a scale.
    ///
    /// # Errors
    /// More labels than 32 bits count.
    pub fn of(sample: &Sample<'_>, starts: &[(f64, f64)]) -> Result<Self> {
        let mut all = Self {
            row: Vec::new(),
            task: Vec::new(),
            label: Vec::new(),
            weight: Vec::new(),
            starts: vec![0],
        };
        for row in 0..sample.table.rows {
            for (t, (target, (mean, scale))) in sample.targets.iter().zip(starts).enumerate() {
                let weight = sample.weight(target, row);
                if let Some(y) = target.label(row).filter(|_| weight > 0.0) {
                    all.row.push(row as u32);
                    all.task.push(t as u32);
                    all.label.push((y - mean) / scale);
                    all.weight.push(weight);
                }
            }
            let end = u32::try_from(all.row.len());
            all.starts
                .push(end.map_err(|_| wrong("more labels than 32 bits count"))?);
        }
        Ok(all)
    }

    /// The labels of a row.
    pub fn of_row(&self, row: usize) -> std::ops::Range<usize> {
        self.starts[row] as usize..self.starts[row + 1] as usize
    }

    /// Rows with a label.
    pub fn rows(&self) -> Vec<u32> {
        let mut rows = self.row.clone();
        rows.dedup();
        rows
    }
}
