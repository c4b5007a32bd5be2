//! Texts of a column in one buffer: a row of a table costs no allocation.

/// Texts one after the other; every one may be missing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Texts {
    bytes: String,
    /// Where each text ends in the buffer.
    ends: Vec<usize>,
    /// Whether it is there; a missing one takes no bytes.
    there: Vec<bool>,
}

impl Texts {
    /// So many missing texts.
    #[must_use]
    pub fn missing(n: usize) -> Self {
        Self {
            bytes: String::new(),
            ends: vec![0; n],
            there: vec![false; n],
        }
    }

    /// Appends one.
    pub fn push(&mut self, text: Option<&str>) {
        self.bytes.push_str(text.unwrap_or_default());
        self.ends.push(self.bytes.len());
        self.there.push(text.is_some());
    }

    /// The text at a place; `None` where it is missing, and beyond the end.
    #[must_use]
    pub fn get(&self, at: usize) -> Option<&str> {
        if !*self.there.get(at)? {
            return None;
        }
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.bytes.get(start..self.ends[at])
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Option<&str>> {
        (0..self.len()).map(|i| self.get(i))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

impl<S: AsRef<str>> FromIterator<Option<S>> for Texts {
    fn from_iter<I: IntoIterator<Item = Option<S>>>(texts: I) -> Self {
        let mut all = Self::default();
        for text in texts {
            all.push(text.as_ref().map(AsRef::as_ref));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let given = [Some("a"), None, Some(""), Some("ünd"), None];
        let texts: Texts = given.into_iter().collect();
        assert_eq!(texts.iter().collect::<Vec<_>>(), given);
        assert_eq!(texts.get(3), Some("ünd"));
        assert_eq!(texts.get(5), None);
        assert_eq!(texts.len(), 5);
        let mut none = Texts::missing(2);
        none.push(Some("x"));
        assert_eq!(none.iter().collect::<Vec<_>>(), [None, None, Some("x")]);
    }
}
