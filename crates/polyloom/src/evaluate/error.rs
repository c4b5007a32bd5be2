//! What measuring can complain about.

/// Input that cannot be measured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// There is nothing to measure.
    #[error("{what}: no examples")]
    Empty {
        /// The quantity that was asked for.
        what: &'static str,
    },
    /// Two lists that belong together have different lengths.
    #[error("{what}: {left} against {right} values")]
    Lengths {
        /// What was compared with what.
        what: &'static str,
        /// Length of the first list.
        left: usize,
        /// Length of the second list.
        right: usize,
    },
    /// A value that the quantity is not defined for.
    #[error("{what}: {problem}")]
    Invalid {
        /// The quantity that was asked for.
        what: &'static str,
        /// What is wrong, with the place of the value.
        problem: String,
    },
    /// Comparisons that do not fix what was asked for: their graph is not strongly connected.
    #[error("{what}: not identifiable, the comparisons fall into {} groups: {}", components.len(), listed(components))]
    NotIdentifiable {
        /// The quantity that was asked for.
        what: &'static str,
        /// Numbers of the items in each strongly connected component; those that nobody outside beats come first.
        components: Vec<Vec<usize>>,
    },
}

/// Result of measuring.
pub type Result<T> = std::result::Result<T, EvalError>;

impl EvalError {
    /// A value that `what` is not defined for.
    pub fn invalid(what: &'static str, problem: impl Into<String>) -> Self {
        Self::Invalid {
            what,
            problem: problem.into(),
        }
    }
}

/// The first few groups, the first few members of each.
fn listed(groups: &[Vec<usize>]) -> String {
    let dots = |n: usize, most: usize| if n > most { ", ..." } else { "" };
    let group = |g: &Vec<usize>| {
        let members: Vec<String> = g.iter().take(8).map(ToString::to_string).collect();
        format!("{{{}{}}}", members.join(", "), dots(g.len(), 8))
    };
    let some: Vec<String> = groups.iter().take(8).map(group).collect();
    format!("{}{}", some.join(", "), dots(groups.len(), 8))
}

/// Refuses lists that are empty or of different lengths.
///
/// # Errors
/// One of the two.
pub fn same_length(what: &'static str, left: usize, right: usize) -> Result<()> {
    if left != right {
        return Err(EvalError::Lengths { what, left, right });
    }
    if left == 0 {
        return Err(EvalError::Empty { what });
    }
    Ok(())
}
