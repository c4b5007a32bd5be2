//! Tasks that need two capabilities: is the chain as weak as its weakest link? (CrossEval; methods/evaluation.md 3.7)

/// Where a cross score lies between the scores of the two capabilities it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CrossKind {
    /// Below both.
    BelowBoth,
    /// Between them, nearer the weaker one or in the middle; also equal to the weaker one.
    NearWeaker,
    /// Between them, nearer the stronger one; also equal to the stronger one.
    NearStronger,
    /// Above both.
    AboveBoth,
}

/// A cross score against its two capabilities.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cross {
    /// Which side it lies on.
    pub kind: CrossKind,
    /// Cross score minus the weaker capability's.
    pub gap_to_weaker: f64,
    /// 0 at the weaker capability, 1 at the stronger one; `NaN` where both are equal.
    pub position: f64,
}

/// Compares a cross score with the scores of the two capabilities, all on one scale where more is better. `None` where a
/// score is `NaN`.
pub fn cross(first: f64, second: f64, cross: f64) -> Option<Cross> {
    if first.is_nan() || second.is_nan() || cross.is_nan() {
        return None;
    }
    let (weak, strong) = (first.min(second), first.max(second));
    let kind = if cross < weak {
        CrossKind::BelowBoth
    } else if cross > strong {
        CrossKind::AboveBoth
    } else if cross - weak <= strong - cross {
        CrossKind::NearWeaker
    } else {
        CrossKind::NearStronger
    };
    let position = match strong - weak {
        0.0 => f64::NAN,
        width => (cross - weak) / width,
    };
    Some(Cross {
        kind,
        gap_to_weaker: cross - weak,
        position,
    })
}

/// How many cross scores lie where, over models and pairs of capabilities.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CrossCounts {
    /// Below both capabilities.
    pub below_both: usize,
    /// Between, nearer the weaker.
    pub near_weaker: usize,
    /// Between, nearer the stronger.
    pub near_stronger: usize,
    /// Above both.
    pub above_both: usize,
}

impl CrossCounts {
    /// Counts one more.
    pub fn add(&mut self, kind: CrossKind) {
        match kind {
            CrossKind::BelowBoth => self.below_both += 1,
            CrossKind::NearWeaker => self.near_weaker += 1,
            CrossKind::NearStronger => self.near_stronger += 1,
            CrossKind::AboveBoth => self.above_both += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_places() {
        let kind = |c| cross(80.0, 40.0, c).unwrap().kind;
        assert_eq!(kind(39.0), CrossKind::BelowBoth);
        assert_eq!(kind(40.0), CrossKind::NearWeaker);
        assert_eq!(kind(60.0), CrossKind::NearWeaker);
        assert_eq!(kind(60.1), CrossKind::NearStronger);
        assert_eq!(kind(80.0), CrossKind::NearStronger);
        assert_eq!(kind(81.0), CrossKind::AboveBoth);
        let c = cross(40.0, 80.0, 50.0).unwrap();
        assert_eq!((c.gap_to_weaker, c.position), (10.0, 0.25));
        assert!(cross(1.0, 1.0, 2.0).unwrap().position.is_nan());
        assert!(cross(1.0, 1.0, f64::NAN).is_none());
        let mut counts = CrossCounts::default();
        for score in [39.0, 10.0, 81.0] {
            counts.add(kind(score));
        }
        assert_eq!((counts.below_both, counts.above_both), (2, 1));
    }
}
