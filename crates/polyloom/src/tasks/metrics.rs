//! The names of metrics that a task may ask for, with their direction: those of the registry
//! ([`crate::evaluate::metric::registry`]), under their names and aliases.

use crate::evaluate::metric::registry;

/// A metric by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Name in the registry.
    pub name: &'static str,
    /// Whether more is better.
    pub higher_is_better: bool,
}

/// All metric names and aliases.
#[must_use]
pub fn names() -> Vec<&'static str> {
    registry::names()
}

/// A metric by name or alias.
#[must_use]
pub fn find(name: &str) -> Option<Known> {
    let metric = registry::find(name)?;
    Some(Known {
        name: metric.name,
        higher_is_better: metric.higher_is_better(),
    })
}
