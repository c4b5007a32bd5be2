//! Ways of making one number per system out of scores on many tasks: their names, and which to take.

use std::fmt;
use std::str::FromStr;

use super::results::{Results, Task};
use crate::evaluate::aggregate::relative::reference;
use crate::evaluate::aggregate::{Direction, ScoreMatrix, TaskColumn};

macro_rules! aggregates {
    ($($variant:ident $name:literal $heading:literal $digits:literal $says:literal;)*) => {
        /// A way of making one number per system.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Aggregate {
            $(#[doc = $says] $variant,)*
        }

        impl Aggregate {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its name on the command line.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// Its name over a column and beside an axis.
            pub fn heading(self) -> &'static str {
                match self { $(Self::$variant => $heading),* }
            }

            /// What it is, in a line.
            pub fn says(self) -> &'static str {
                match self { $(Self::$variant => $says),* }
            }

            /// Digits after the point that its table shows.
            pub fn digits(self) -> usize {
                match self { $(Self::$variant => $digits),* }
            }
        }
    };
}

aggregates! {
    Mean "mean" "mean" 4 "mean score over the tasks";
    SizeMean "size_mean" "mean by size" 4 "mean score, tasks by their number of examples";
    GroupMean "group_mean" "mean of groups" 4 "mean of the means of groups of tasks";
    AboveChance "above_chance" "above chance" 2 "mean of 0 = guessing, 100 = the best possible score";
    Normalised "normalised" "share of experts" 4 "mean of score / score of the task's own expert";
    DeltaM "delta_m" "Δ to experts" 4 "mean relative gain over the task's own expert";
    Borda "borda" "Borda" 1 "systems beaten, summed over the tasks";
    BordaAll "borda_mteb" "Borda, all systems" 1 "number of systems less the rank, summed over the tasks; absent is 0 (MTEB)";
    MeanRank "mean_rank" "mean rank" 2 "mean rank over the tasks, less is better";
    WinRate "win_rate" "win rate" 4 "mean share of the other systems beaten, ties one half (HELM)";
    Copeland "copeland" "Copeland" 1 "majorities won against the other systems";
    Kemeny "kemeny" "Kemeny" 0 "place in the order with the fewest disagreements";
    BradleyTerry "bt" "Bradley–Terry" 0 "Bradley-Terry strength from pairs of systems, Elo scale";
    PlackettLuce "pl" "Plackett–Luce" 0 "Plackett-Luce strength from the order on each task, Elo scale";
    Davidson "davidson" "Davidson" 0 "Bradley-Terry strength with ties as outcomes of their own (Davidson), Elo scale";
    BradleyTerryAnswers "bt_answers" "Bradley–Terry, answers" 0 "Bradley-Terry strength from single answers, Elo scale";
    PlackettLuceAnswers "pl_answers" "Plackett–Luce, answers" 0 "Plackett-Luce strength from single answers (ONEBench), Elo scale";
    Irt "irt" "ability" 3 "ability by item response theory, from single answers";
    Synergy "synergy" "General-Level 4" 2 "General-Level 4: groups comprehension and generation against specialists";
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Aggregate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // `win-rate` is `win_rate`.
        let text = text.trim().replace('-', "_");
        let found = Self::ALL.iter().find(|a| a.name() == text);
        found.copied().ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|a| a.name()).collect();
            format!("unknown; there are {}", names.join(", "))
        })
    }
}

impl Aggregate {
    /// What it is, within a sentence.
    pub fn words(self) -> String {
        format!("the {}", self.says())
    }

    /// The good end of its numbers on a table; `None` where they have none: a mean over errors and accuracies.
    pub fn good_in(self, matrix: &ScoreMatrix) -> Option<Direction> {
        let counts = |t: &&TaskColumn| {
            t.weight > 0.0 && (self != Self::Normalised || t.expert.is_some_and(|x| x != 0.0))
        };
        match self {
            Self::Mean | Self::SizeMean | Self::GroupMean | Self::Normalised => {
                let mut ends = matrix.tasks().iter().filter(counts).map(|t| t.direction);
                let first = ends.next()??;
                ends.all(|d| d == Some(first)).then_some(first)
            }
            _ => Some(self.good()),
        }
    }

    /// The tasks that count: with weight and, where it asks who is better, with a good end.
    pub fn tasks_of(self, matrix: &ScoreMatrix) -> Vec<usize> {
        let tasks = matrix.tasks().iter().enumerate();
        let counts = |t: &TaskColumn| match self {
            Self::Normalised | Self::DeltaM => reference(t).is_some(),
            by => t.weight > 0.0 && (by.reads_scale() || t.direction.is_some()),
        };
        tasks.filter(|(_, t)| counts(t)).map(|(i, _)| i).collect()
    }

    /// The good end of its numbers, where the tasks have one end or it looks at each task's own.
    pub fn good(self) -> Direction {
        match self {
            Self::MeanRank | Self::Kemeny => Direction::Lower,
            _ => Direction::Higher,
        }
    }

    /// Whether it reads single answers instead of the scores of tasks.
    pub fn from_answers(self) -> bool {
        matches!(
            self,
            Self::Irt | Self::BradleyTerryAnswers | Self::PlackettLuceAnswers
        )
    }

    /// Whether it reads the sizes of differences and so the scale of the scores; the others read orders alone.
    pub fn reads_scale(self) -> bool {
        matches!(
            self,
            Self::Mean
                | Self::SizeMean
                | Self::GroupMean
                | Self::AboveChance
                | Self::Normalised
                | Self::DeltaM
                | Self::Synergy
        )
    }
}

/// The default ways of counting. Scores of one scale and direction without gaps: the mean, the win rate and Borda's
/// points. Several scales or directions: the same without the mean, which would add what does not belong together. With
/// gaps: strengths and the win rate, which read what was measured; in large tables the win rate first, for a thousand
/// draws of it cost little.
pub fn usual(results: &Results) -> Vec<Aggregate> {
    let (systems, tasks) = (results.systems.len(), results.tasks.len());
    let whole = results.filled() == results.cells.len();
    let large = systems * systems * (tasks + 20 * systems) >= 4_000_000;
    match (one_scale(results), whole) {
        (true, true) => vec![Aggregate::Mean, Aggregate::WinRate, Aggregate::Borda],
        (false, true) => vec![
            Aggregate::WinRate,
            Aggregate::Borda,
            Aggregate::BradleyTerry,
        ],
        (true, false) if large => {
            vec![Aggregate::WinRate, Aggregate::BradleyTerry, Aggregate::Mean]
        }
        (true, false) => vec![Aggregate::BradleyTerry, Aggregate::WinRate, Aggregate::Mean],
        (false, false) if large => vec![Aggregate::WinRate, Aggregate::BradleyTerry],
        (false, false) => vec![Aggregate::BradleyTerry, Aggregate::WinRate],
    }
}

/// Whether more is better on all tasks and their scores share a scale: all within -1 to 1, or all within -100 to 100 and
/// every task beyond 1.
pub fn one_scale(results: &Results) -> bool {
    let most = |t: usize| {
        let cells = (0..results.systems.len()).filter_map(|s| results.cell(s, t));
        cells.map(|c| c.value.abs()).fold(0.0, f64::max)
    };
    let up = |t: &Task| t.column.direction == Some(Direction::Higher);
    let most: Vec<f64> = (0..results.tasks.len()).map(most).collect();
    let inside = |from: f64, to: f64| most.iter().all(|m| *m > from && *m <= to);
    results.tasks.iter().all(up) && (inside(-1.0, 1.0) || inside(1.0, 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelled_either_way() {
        for by in Aggregate::ALL {
            assert_eq!(by.name().replace('_', "-").parse(), Ok(*by));
            assert_eq!(by.name().parse(), Ok(*by));
        }
        assert!(
            "median"
                .parse::<Aggregate>()
                .unwrap_err()
                .contains("win_rate")
        );
    }
}
