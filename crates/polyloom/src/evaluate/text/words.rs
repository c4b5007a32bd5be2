//! Tokens as numbers.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A hash map with [`Fold`].
pub(crate) type Map<K, V> = HashMap<K, V, BuildHasherDefault<Fold>>;

/// Eight bytes at a time, each folded in by the two halves of a 128-bit product: enough for short keys, and several
/// times faster than the default hash. Never iterate a map over it into a result.
#[derive(Default, Clone, Copy)]
pub(crate) struct Fold(u64);

impl Fold {
    fn fold(&mut self, x: u64) {
        self.0 = mix(self.0.rotate_left(23) ^ x);
    }
}

/// The halves of a product by an odd constant, added without carry.
pub(crate) fn mix(x: u64) -> u64 {
    let wide = u128::from(x ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
    (wide as u64) ^ ((wide >> 64) as u64)
}

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let (eights, rest) = bytes.as_chunks::<8>();
        for eight in eights {
            self.fold(u64::from_le_bytes(*eight));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.fold(u64::from_le_bytes(last) ^ ((bytes.len() as u64) << 56));
    }

    fn write_u8(&mut self, x: u8) {
        self.0 ^= u64::from(x);
    }

    fn write_u32(&mut self, x: u32) {
        self.fold(u64::from(x));
    }

    fn write_u64(&mut self, x: u64) {
        self.fold(x);
    }
}

/// Numbers tokens in the order in which they are first seen. What a token becomes (a stem, say) can be kept beside it,
/// so that it is computed once per distinct token.
#[derive(Default)]
pub(crate) struct Words {
    ids: Map<Box<str>, u32>,
    aliases: Map<Box<str>, u32>,
}

impl Words {
    /// The number of a token.
    pub(crate) fn id(&mut self, token: &str) -> u32 {
        if let Some(&id) = self.ids.get(token) {
            return id;
        }
        let id = self.ids.len() as u32;
        self.ids.insert(token.into(), id);
        id
    }

    /// The number of what `change` makes of a token.
    pub(crate) fn changed(&mut self, token: &str, change: impl FnOnce(&str) -> String) -> u32 {
        if let Some(&id) = self.aliases.get(token) {
            return id;
        }
        let id = self.id(&change(token));
        self.aliases.insert(token.into(), id);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_tokens_have_equal_numbers() {
        let mut words = Words::default();
        let ids = ["a", "b", "a", "", "longer than eight bytes", "b"].map(|t| words.id(t));
        assert_eq!(ids, [0, 1, 0, 2, 3, 1]);
        assert_eq!(words.changed("A", str::to_lowercase), 0);
        assert_eq!(words.changed("A", |_| unreachable!()), 0);
    }
}
