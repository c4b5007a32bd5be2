//! Porter's stemmer (1980): "An algorithm for suffix stripping", Program 14(3), with the published departures of his own
//! later code and the extensions of NLTK's default mode, which rouge-score uses.

/// Whole words that the rules would treat badly (NLTK's list).
const IRREGULAR: [(&str, &str); 16] = [
    ("sky", "sky"),
    ("skies", "sky"),
    ("dying", "die"),
    ("lying", "lie"),
    ("tying", "tie"),
    ("news", "news"),
    ("innings", "inning"),
    ("inning", "inning"),
    ("outings", "outing"),
    ("outing", "outing"),
    ("cannings", "canning"),
    ("canning", "canning"),
    ("howe", "howe"),
    ("proceed", "proceed"),
    ("exceed", "exceed"),
    ("succeed", "succeed"),
];

/// Step 2: suffixes replaced where the rest has a measure above zero. `logi` has a condition of its own.
const STEP_2: [(&str, &str); 21] = [
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("fulli", "ful"),
];

const STEP_3: [(&str, &str); 7] = [
    ("icate", "ic"),
    ("ative", ""),
    ("alize", "al"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
];

/// Step 4: suffixes dropped where the rest has a measure above one; `ion` only after s or t.
const STEP_4: [&str; 19] = [
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou",
    "ism", "ate", "iti", "ous", "ive", "ize",
];

/// The stem of a lower-case word; other characters than a to z count as consonants. Words of one or two bytes are their
/// own stems.
pub fn stem(word: &str) -> String {
    if let Some((_, stem)) = IRREGULAR.iter().find(|(w, _)| *w == word) {
        return (*stem).to_owned();
    }
    let mut word = word.to_owned();
    if word.len() > 2 {
        plural(&mut word);
        past(&mut word);
        final_y(&mut word);
        step_2(&mut word);
        replace(&mut word, &STEP_3);
        step_4(&mut word);
        final_e(&mut word);
        if word.ends_with("ll") && measure(&word[..word.len() - 1]) > 1 {
            word.pop();
        }
    }
    word
}

/// Which letters are consonants.
fn consonants(word: &str) -> impl Iterator<Item = bool> + '_ {
    word.chars().scan(false, |before, c| {
        *before = match c {
            'a' | 'e' | 'i' | 'o' | 'u' => false,
            // A y is a consonant at the start and after a vowel.
            'y' => !*before,
            _ => true,
        };
        Some(*before)
    })
}

fn shape(word: &str) -> Vec<bool> {
    consonants(word).collect()
}

/// How often a run of vowels is followed by a run of consonants.
fn measure(word: &str) -> usize {
    let mut vowel_before = false;
    consonants(word)
        .filter(|&consonant| {
            let step = vowel_before && consonant;
            vowel_before = !consonant;
            step
        })
        .count()
}

fn has_vowel(word: &str) -> bool {
    consonants(word).any(|consonant| !consonant)
}

fn double_consonant(word: &str) -> bool {
    let mut ends = word.chars().rev();
    ends.next().is_some_and(|c| ends.next() == Some(c)) && shape(word).last() == Some(&true)
}

/// Ends in consonant, vowel, consonant other than w, x, y; or is a vowel and a consonant.
fn short(word: &str) -> bool {
    match shape(word)[..] {
        [false, true] => true,
        [.., true, false, true] => !word.ends_with(['w', 'x', 'y']),
        _ => false,
    }
}

fn cut(word: &mut String, bytes: usize, new: &str) {
    word.truncate(word.len() - bytes);
    word.push_str(new);
}

/// Step 1a.
fn plural(word: &mut String) {
    if word.ends_with("sses") {
        cut(word, 2, "");
    } else if word.ends_with("ies") {
        let cut_off = if word.len() == 4 { 1 } else { 2 };
        cut(word, cut_off, "");
    } else if word.ends_with('s') && !word.ends_with("ss") {
        word.pop();
    }
}

/// Step 1b.
fn past(word: &mut String) {
    if word.ends_with("ied") {
        let cut_off = if word.len() == 4 { 1 } else { 2 };
        return cut(word, cut_off, "");
    }
    if let Some(rest) = word.strip_suffix("eed") {
        if measure(rest) > 0 {
            word.pop();
        }
        return;
    }
    let Some(rest) = word.strip_suffix("ed").or(word.strip_suffix("ing")) else {
        return;
    };
    if !has_vowel(rest) {
        return;
    }
    word.truncate(rest.len());
    if word.ends_with("at") || word.ends_with("bl") || word.ends_with("iz") {
        word.push('e');
    } else if double_consonant(word) {
        if !word.ends_with(['l', 's', 'z']) {
            word.pop();
        }
    } else if measure(word) == 1 && short(word) {
        word.push('e');
    }
}

/// Step 1c.
fn final_y(word: &mut String) {
    if let Some(rest) = word.strip_suffix('y')
        && rest.chars().nth(1).is_some()
        && shape(rest).last() == Some(&true)
    {
        cut(word, 1, "i");
    }
}

fn replace(word: &mut String, rules: &[(&str, &str)]) {
    if let Some((rest, old, new)) = rules
        .iter()
        .find_map(|(old, new)| word.strip_suffix(old).map(|rest| (rest, old, new)))
        && measure(rest) > 0
    {
        cut(word, old.len(), new);
    }
}

fn step_2(word: &mut String) {
    if let Some(rest) = word.strip_suffix("alli")
        && measure(rest) > 0
    {
        cut(word, 2, "");
    }
    if word.ends_with("logi") {
        if measure(&word[..word.len() - 3]) > 0 {
            word.pop();
        }
    } else {
        replace(word, &STEP_2);
    }
}

fn step_4(word: &mut String) {
    if let Some((rest, suffix)) = STEP_4
        .iter()
        .find_map(|suffix| word.strip_suffix(suffix).map(|rest| (rest, suffix)))
        && measure(rest) > 1
        && (*suffix != "ion" || rest.ends_with(['s', 't']))
    {
        word.truncate(rest.len());
    }
}

/// Step 5a.
fn final_e(word: &mut String) {
    if let Some(rest) = word.strip_suffix('e')
        && (measure(rest) > 1 || (measure(rest) == 1 && !short(rest)))
    {
        word.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_of_the_paper() {
        for word in ["tr", "ee", "tree", "y", "by"] {
            assert_eq!(measure(word), 0, "{word}");
        }
        for word in ["trouble", "oats", "trees", "ivy"] {
            assert_eq!(measure(word), 1, "{word}");
        }
        for word in ["troubles", "private", "oaten", "orrery"] {
            assert_eq!(measure(word), 2, "{word}");
        }
        assert!(short("hop") && short("up") && !short("snow") && !short("box") && !short("tray"));
    }

    #[test]
    fn examples_of_the_paper() {
        for (word, expected) in [
            ("caresses", "caress"),
            ("ponies", "poni"),
            ("feed", "feed"),
            ("agreed", "agre"),
            ("hopping", "hop"),
            ("falling", "fall"),
            ("filing", "file"),
            ("happy", "happi"),
            ("oscillators", "oscil"),
            ("generalizations", "gener"),
            ("controll", "control"),
            ("dies", "die"),
            ("by", "by"),
            ("apologies", "apolog"),
        ] {
            assert_eq!(stem(word), expected);
        }
    }
}
