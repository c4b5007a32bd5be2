//! Running text as numbers: its words hashed to a fixed number of places.
//!
//! Source: Weinberger et al., *Feature Hashing for Large Scale Multitask Learning*, ICML 2009 (places and signs); the weights of
//! places are the smooth inverse document frequencies of scikit-learn's `TfidfTransformer`, counted of places, not of words.

use std::collections::BTreeMap;

/// Places of a column of text where nothing is said.
pub const SIZE: usize = 1024;

/// Most places of a column of text.
pub const MOST: usize = 1 << 16;

/// The place of a word and its sign, by the bytes of the word in lower case.
fn place(word: &str, size: usize) -> (usize, f32) {
    let hash = polyloom_core::hash::xxh3(word.as_bytes());
    let sign = if hash >> 63 == 0 { 1.0 } else { -1.0 };
    // The sign's bit is the highest one, the place is made of all others.
    ((hash & (u64::MAX >> 1)) as usize % size, sign)
}

/// Scripts without spaces between words: every character is a word.
fn alone(c: char) -> bool {
    matches!(u32::from(c), 0x3040..=0x30FF | 0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xF900..=0xFAFF | 0x2_0000..=0x3_FFFF)
}

/// The words of a text in lower case: runs of letters and digits; of scripts without spaces (Han, Kana) the characters.
fn each_word(text: &str, take: &mut dyn FnMut(&str)) {
    let mut word = String::new();
    for c in text.chars() {
        let part = c.is_alphanumeric();
        if (!part || alone(c)) && !word.is_empty() {
            take(&word);
            word.clear();
        }
        if alone(c) {
            take(c.encode_utf8(&mut [0; 4]));
        } else if part {
            word.extend(c.to_lowercase());
        }
    }
    if !word.is_empty() {
        take(&word);
    }
}

/// Sums of the signs of the words at the places that have words.
fn sums(text: &str, size: usize) -> BTreeMap<usize, f32> {
    let mut found = BTreeMap::new();
    each_word(text, &mut |word| {
        let (place, sign) = place(word, size);
        *found.entry(place).or_insert(0.0) += sign;
    });
    found
}

/// Counts in how many rows a place has words.
#[derive(Debug, Clone, PartialEq)]
pub struct Counts {
    rows: u64,
    of: Vec<u64>,
}

impl Counts {
    /// Of so many places.
    pub fn new(size: usize) -> Self {
        Self {
            rows: 0,
            of: vec![0; size],
        }
    }

    /// Sees the text of a training row; an empty one where there is none.
    pub fn see(&mut self, text: &str) {
        self.rows += 1;
        for place in sums(text, self.of.len()).into_keys() {
            self.of[place] += 1;
        }
    }

    /// Weights of the places: `ln((1 + rows) / (1 + rows with the place)) + 1`.
    pub fn weights(&self) -> Vec<f32> {
        let rows = (1 + self.rows) as f64;
        let weight = |n: &u64| ((rows / (1 + n) as f64).ln() + 1.0) as f32;
        self.of.iter().map(weight).collect()
    }
}

/// Puts a text into places, which hold zeros: sums of signs times weights, scaled to the length 1, so that all places together
/// weigh as much as one number: a text that says nothing does little harm. A text without words stays zeros.
pub fn put(text: &str, weights: &[f32], places: &mut [f32]) {
    let mut square = 0.0;
    let found = sums(text, weights.len());
    for (at, sum) in &found {
        square += f64::from(sum * weights[*at]).powi(2);
    }
    if square > 0.0 {
        let scale = (1.0 / square.sqrt()) as f32;
        for (at, sum) in found {
            places[at] = sum * weights[at] * scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let mut all = Vec::new();
        each_word(text, &mut |w| all.push(w.to_owned()));
        all
    }

    #[test]
    fn words_are_runs_of_letters_and_digits() {
        assert_eq!(
            words("It's 2 o'CLOCK, É!"),
            ["it", "s", "2", "o", "clock", "é"]
        );
        assert_eq!(words("東京 2020年x"), ["東", "京", "2020", "年", "x"]);
        assert!(words(" ,.- ").is_empty());
    }

    /// Two words at places of their own, of which one is in every row: weights ln(4/4)+1 and ln(4/2)+1.
    #[test]
    fn a_text_is_its_weighted_places_at_a_fixed_length() {
        let size = 64;
        let ((a, sign_a), (b, sign_b)) = (place("common", size), place("rare", size));
        assert_ne!(a, b);
        let mut counts = Counts::new(size);
        for text in ["common", "common RARE", "Common common"] {
            counts.see(text);
        }
        let weights = counts.weights();
        let rare = 2f64.ln() as f32 + 1.0;
        assert_eq!((weights[a], weights[b]), (1.0, rare));
        let mut found = vec![0.0; size];
        put("common, rare: common", &weights, &mut found);
        let length = (4.0 + rare * rare).sqrt();
        assert!((found[a] - sign_a * 2.0 / length).abs() < 1e-6);
        assert!((found[b] - sign_b * rare / length).abs() < 1e-6);
        assert_eq!(found.iter().filter(|x| **x != 0.0).count(), 2);
        let mut none = vec![0.0; size];
        put("...", &weights, &mut none);
        assert_eq!(none, vec![0.0; size]);
    }

    /// Words that cancel out at a place leave zeros, no division by zero.
    #[test]
    fn a_text_whose_words_cancel_is_zeros() {
        let word = |sign: f32| {
            (0..)
                .map(|i| format!("w{i}"))
                .find(|w| place(w, 1).1 == sign)
        };
        let text = format!("{} {}", word(1.0).unwrap(), word(-1.0).unwrap());
        let mut found = [0.0];
        put(&text, &[1.0], &mut found);
        assert_eq!(found, [0.0]);
    }
}
