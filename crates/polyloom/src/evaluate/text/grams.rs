//! N-grams as numbers, and clipped counts of them.

use super::words::mix;

/// Numbers n-grams densely: the number of an n-gram is that of the pair (its first n − 1 tokens, its last token). Exact
/// for any order, one look-up per n-gram, and emptied in constant time, so that one table serves all segments.
pub(crate) struct Grams {
    slots: Vec<Slot>,
    round: u32,
    next: u32,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    key: u64,
    round: u32,
    id: u32,
}

/// No n-gram: the empty prefix.
pub(crate) const ROOT: u32 = u32::MAX;

impl Default for Grams {
    fn default() -> Self {
        Self {
            slots: vec![Slot::default(); 256],
            round: 1,
            next: 0,
        }
    }
}

impl Grams {
    /// Forgets all n-grams.
    pub(crate) fn clear(&mut self) {
        self.next = 0;
        self.round = self.round.wrapping_add(1);
        if self.round == 0 {
            self.slots.fill(Slot::default());
            self.round = 1;
        }
    }

    fn place(&self, key: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = mix(key) as usize & mask;
        while self.slots[at].round == self.round && self.slots[at].key != key {
            at = (at + 1) & mask;
        }
        at
    }

    /// The number of the n-gram `before` + `token`, if it was seen.
    pub(crate) fn find(&self, before: u32, token: u32) -> Option<u32> {
        let slot = self.slots[self.place(pair(before, token))];
        (slot.round == self.round).then_some(slot.id)
    }

    /// The number of the n-gram `before` + `token`, a new one if it was not seen.
    pub(crate) fn id(&mut self, before: u32, token: u32) -> u32 {
        let key = pair(before, token);
        let at = self.place(key);
        if self.slots[at].round == self.round {
            return self.slots[at].id;
        }
        let (id, round) = (self.next, self.round);
        self.slots[at] = Slot { key, round, id };
        self.next += 1;
        if self.next as usize * 2 > self.slots.len() {
            self.grow();
        }
        id
    }

    fn grow(&mut self) {
        let larger = vec![Slot::default(); self.slots.len() * 2];
        for slot in std::mem::replace(&mut self.slots, larger) {
            if slot.round == self.round {
                let at = self.place(slot.key);
                self.slots[at] = slot;
            }
        }
    }
}

fn pair(before: u32, token: u32) -> u64 {
    (u64::from(before) << 32) | u64::from(token)
}

/// Clipped matches of n-grams between a candidate and the references of one segment.
#[derive(Default)]
pub(crate) struct Clips {
    grams: Grams,
    /// Per n-gram: the largest count in one reference, the count in the reference at hand, and how many are matched.
    most: Vec<u32>,
    now: Vec<u32>,
    used: Vec<u32>,
    /// The n-gram that starts at each place.
    at: Vec<u32>,
    touched: Vec<u32>,
}

impl Clips {
    /// Begins a segment.
    pub(crate) fn clear(&mut self) {
        self.grams.clear();
        self.most.clear();
        self.now.clear();
        self.used.clear();
    }

    /// Takes in a reference: n-grams of order 1 to `order`.
    pub(crate) fn reference(&mut self, tokens: &[u32], order: usize) {
        self.at.clear();
        self.at.resize(tokens.len(), ROOT);
        self.touched.clear();
        for n in 1..=order.min(tokens.len()) {
            for start in 0..=tokens.len() - n {
                let id = self.grams.id(self.at[start], tokens[start + n - 1]);
                self.at[start] = id;
                if id as usize == self.most.len() {
                    self.most.push(0);
                    self.now.push(0);
                    self.used.push(0);
                }
                self.now[id as usize] += 1;
                if self.now[id as usize] == 1 {
                    self.touched.push(id);
                }
            }
        }
        for &id in &self.touched {
            let id = id as usize;
            self.most[id] = self.most[id].max(self.now[id]);
            self.now[id] = 0;
        }
    }

    /// Adds to `matches[n - 1]` how many n-grams of the candidate are matched, each at most as often as it stands in the
    /// reference that has it most often. Once per segment.
    pub(crate) fn matches(&mut self, tokens: &[u32], matches: &mut [u64]) {
        self.at.clear();
        self.at.resize(tokens.len(), ROOT);
        for (i, matched) in matches.iter_mut().enumerate().take(tokens.len()) {
            for start in 0..tokens.len() - i {
                // Longer n-grams that begin with one of no reference stand in no reference either.
                if i > 0 && self.at[start] == ROOT {
                    continue;
                }
                match self.grams.find(self.at[start], tokens[start + i]) {
                    Some(id) => {
                        self.at[start] = id;
                        let id = id as usize;
                        if self.used[id] < self.most[id] {
                            self.used[id] += 1;
                            *matched += 1;
                        }
                    }
                    None => self.at[start] = ROOT,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn plain(candidate: &[u32], references: &[Vec<u32>], order: usize) -> Vec<u64> {
        let count = |tokens: &[u32], n: usize| {
            let mut counts = BTreeMap::<Vec<u32>, u64>::new();
            for gram in tokens.windows(n) {
                *counts.entry(gram.to_vec()).or_default() += 1;
            }
            counts
        };
        (1..=order)
            .map(|n| {
                let sides: Vec<_> = references.iter().map(|r| count(r, n)).collect();
                let ours = count(candidate, n);
                let most = |gram| sides.iter().map(|s| *s.get(gram).unwrap_or(&0)).max();
                ours.iter()
                    .map(|(gram, n)| *n.min(&most(gram).unwrap_or(0)))
                    .sum()
            })
            .collect()
    }

    proptest! {
        #[test]
        fn as_with_maps(
            candidate in prop::collection::vec(0u32..5, 0..60),
            references in prop::collection::vec(prop::collection::vec(0u32..5, 0..60), 0..4),
            order in 1usize..7,
        ) {
            let mut clips = Clips::default();
            for _ in 0..2 {
                clips.clear();
                references.iter().for_each(|r| clips.reference(r, order));
                let mut matches = vec![0; order];
                clips.matches(&candidate, &mut matches);
                prop_assert_eq!(&matches, &plain(&candidate, &references, order));
            }
        }
    }
}
