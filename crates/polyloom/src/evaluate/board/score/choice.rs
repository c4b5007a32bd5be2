//! Which of several choices a free answer names.

/// The place of the choice that a text names: alone, in its first or last line, by its letter (where letters were shown),
/// or as the only choice that it mentions. Case and punctuation around do not count; nothing is guessed from several.
#[must_use]
pub fn find(text: &str, choices: &[String], letters: bool) -> Option<usize> {
    let lines = || text.lines().filter(|l| !l.trim().is_empty());
    let tail = text
        .rfind("answer is")
        .map(|at| &text[at + "answer is".len()..]);
    let parts = [Some(text), lines().next(), lines().next_back(), tail];
    for part in parts.into_iter().flatten() {
        let part = bare(part);
        if let Some(place) = choices.iter().position(|c| bare(c) == part) {
            return Some(place);
        }
    }
    if letters {
        let parts = [tail, lines().next(), lines().next_back()];
        let found = parts
            .into_iter()
            .flatten()
            .find_map(|p| letter(p, choices.len()));
        if found.is_some() {
            return found;
        }
    }
    tail.and_then(|t| mentioned(t, choices))
        .or_else(|| mentioned(text, choices))
}

/// Lower case, without white space, quotes and stops around.
fn bare(text: &str) -> String {
    let around = |c: char| c.is_whitespace() || ".,:;!\"'`*()[]".contains(c);
    text.trim_matches(around).to_lowercase()
}

/// A letter at the start: `B`, `(B)`, `B.`, `B: because`.
fn letter(text: &str, choices: usize) -> Option<usize> {
    let text = text.trim_start_matches([' ', ':', '*', '(', '[', '"', '\'']);
    let mut chars = text.chars();
    let first = chars.next().filter(char::is_ascii_uppercase)?;
    let ends = chars
        .next()
        .is_none_or(|c| !c.is_alphanumeric() && c != ' ' && c != '\'');
    let place = usize::from(u8::try_from(first).ok()? - b'A');
    (ends && place < choices).then_some(place)
}

/// The only choice that stands in a text as whole words; one inside a longer one that stands there too does not count.
fn mentioned(text: &str, choices: &[String]) -> Option<usize> {
    let text = text.to_lowercase();
    let mut found: Vec<(usize, usize, usize)> = Vec::new();
    for (place, choice) in choices.iter().enumerate() {
        let word = choice.trim().to_lowercase();
        if word.is_empty() {
            continue;
        }
        for (start, _) in text.match_indices(&word) {
            let end = start + word.len();
            let part = |c: char| c.is_alphanumeric() || c == '_';
            let free = !text[..start].ends_with(part) && !text[end..].starts_with(part);
            if free {
                found.push((start, end, place));
            }
        }
    }
    let inside = |a: &(usize, usize, usize)| {
        found
            .iter()
            .any(|b| b.0 <= a.0 && a.1 <= b.1 && b.1 - b.0 > a.1 - a.0)
    };
    let mut places: Vec<usize> = found.iter().filter(|f| !inside(f)).map(|f| f.2).collect();
    places.sort_unstable();
    places.dedup();
    match places[..] {
        [one] => Some(one),
        _ => None,
    }
}

/// The first number in a text.
#[must_use]
pub fn number(text: &str) -> Option<String> {
    let part = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
    let words = text
        .split(|c| !part(c))
        .map(|w| w.trim_end_matches(['.', '-', '+', 'e', 'E']));
    words
        .filter(|w| w.contains(|c: char| c.is_ascii_digit()))
        .find(|w| w.parse::<f64>().is_ok_and(f64::is_finite))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, choices: &[&str], letters: bool) -> Option<usize> {
        let choices: Vec<String> = choices.iter().map(|c| (*c).to_owned()).collect();
        find(text, &choices, letters)
    }

    #[test]
    fn what_an_answer_names() {
        let two = ["negative", "positive"];
        assert_eq!(place(" Positive.\n", &two, false), Some(1));
        assert_eq!(place("**positive**", &two, false), Some(1));
        assert_eq!(
            place("The label is positive, I think", &two, false),
            Some(1)
        );
        assert_eq!(
            place("positive\n\nIt is not negative because ...", &two, false),
            Some(1)
        );
        assert_eq!(place("neither negative nor positive", &two, false), None);
        assert_eq!(
            place(
                "not negative at all, so the answer is positive.",
                &two,
                false
            ),
            Some(1)
        );
        assert_eq!(place("nonnegative", &two, false), None);
        // A choice inside a longer one.
        let cards = ["card", "lost card", "refund"];
        assert_eq!(place("It is a lost card", &cards, false), Some(1));
        assert_eq!(place("", &cards, false), None);
        let three = ["red", "a blue one", "green"];
        assert_eq!(place("(B)", &three, true), Some(1));
        assert_eq!(place("B. a blue one", &three, true), Some(1));
        assert_eq!(
            place("First I look. So the answer is (C).", &three, true),
            Some(2)
        );
        assert_eq!(place("A car is red", &three, true), Some(0));
        assert_eq!(place("(Z)", &three, true), None);
    }

    #[test]
    fn the_first_number() {
        assert_eq!(number("about 3.5 of 5").as_deref(), Some("3.5"));
        assert_eq!(number("Score: -2.").as_deref(), Some("-2"));
        assert_eq!(number("2e3").as_deref(), Some("2e3"));
        assert_eq!(number("none"), None);
    }
}
