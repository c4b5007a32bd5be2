//! The tokenisers of sacrebleu and of TER's reference program.

use std::collections::hash_map::Entry;
use std::sync::OnceLock;

use regex::Regex;

use super::words::Map;

/// How text is cut into the tokens that BLEU counts, as in sacrebleu 2.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tokenizer {
    /// At white space only, for text that is tokenised already.
    None,
    /// Of mteval-v13a, the default of WMT: punctuation apart from words, periods and commas between digits kept.
    #[default]
    V13a,
    /// Of mteval-v14 (`intl`): every punctuation mark and symbol of Unicode, with the same exception for digits.
    International,
    /// Every character that is not white space (`char`).
    Character,
    /// Chinese characters one by one, the rest as in [`Tokenizer::V13a`] without its entities (`zh`). What counts as
    /// Chinese is sacrebleu's list, in which a slip of the pen makes U+2001 to U+2A6D Chinese (general punctuation and
    /// arrows among them) and leaves the supplementary planes out; it is kept, so that numbers stay comparable.
    Chinese,
}

impl Tokenizer {
    /// Name in sacrebleu and in signatures.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::V13a => "13a",
            Self::International => "intl",
            Self::Character => "char",
            Self::Chinese => "zh",
        }
    }

    /// The tokeniser of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        [
            Self::None,
            Self::V13a,
            Self::International,
            Self::Character,
            Self::Chinese,
        ]
        .into_iter()
        .find(|t| t.name() == name)
    }

    /// The tokens of a text.
    pub fn tokens(self, text: &str) -> Vec<String> {
        let mut tokens = Vec::new();
        Cutter::default().each(self, text, |token| tokens.push(token.to_owned()));
        tokens
    }
}

/// White space as Python's `str.split` knows it: that of Unicode and the four separators of ASCII.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// The pieces between white space.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// Cuts texts; keeps working space and what it has learnt of characters.
#[derive(Default)]
pub(crate) struct Cutter {
    line: Vec<u8>,
    spare: Vec<u8>,
    chars: Vec<char>,
    spare_chars: Vec<char>,
    classes: Map<char, Class>,
}

impl Cutter {
    /// Gives the tokens of a text to `sink`, in order. White space at the end of the text is dropped first.
    pub(crate) fn each(&mut self, tokenizer: Tokenizer, text: &str, mut sink: impl FnMut(&str)) {
        let text = text.trim_end_matches(is_space);
        match tokenizer {
            Tokenizer::None => words(text).for_each(sink),
            Tokenizer::Character => {
                let mut bytes = [0; 4];
                for c in text.chars().filter(|c| !is_space(*c)) {
                    sink(c.encode_utf8(&mut bytes));
                }
            }
            Tokenizer::International => {
                let text = self.international(text);
                words(&text).for_each(sink);
            }
            Tokenizer::V13a => {
                let mut text = std::borrow::Cow::Borrowed(text);
                for (old, new) in [("<skipped>", ""), ("-\n", ""), ("\n", " ")] {
                    if text.contains(old) {
                        text = text.replace(old, new).into();
                    }
                }
                if text.contains('&') {
                    text = entities(&text).into();
                }
                self.line.clear();
                self.line.push(b' ');
                self.line.extend_from_slice(text.as_bytes());
                self.line.push(b' ');
                self.western();
                words(&String::from_utf8_lossy(&self.line)).for_each(sink);
            }
            Tokenizer::Chinese => {
                self.line.clear();
                let mut bytes = [0; 4];
                for c in text.trim_start_matches(is_space).chars() {
                    let c_bytes = c.encode_utf8(&mut bytes).as_bytes();
                    if is_chinese(c) {
                        self.line.push(b' ');
                        self.line.extend_from_slice(c_bytes);
                        self.line.push(b' ');
                    } else {
                        self.line.extend_from_slice(c_bytes);
                    }
                }
                self.western();
                words(&String::from_utf8_lossy(&self.line)).for_each(sink);
            }
        }
    }

    /// The rules for western languages, on `line`: each is a pass of its own, from left to right, in which a character
    /// that one match has used is not used by the next.
    fn western(&mut self) {
        let (line, spare) = (&mut self.line, &mut self.spare);
        western(line, spare, |_| {});
    }

    fn international(&mut self, text: &str) -> String {
        self.chars.clear();
        self.chars.extend(text.chars());
        // A punctuation mark after anything but a digit, and before anything but a digit.
        self.pairs(|a, b| a != Class::Number && b == Class::Punctuation, false);
        self.pairs(|a, b| a == Class::Punctuation && b != Class::Number, true);
        let mut out = String::with_capacity(2 * text.len());
        for &c in &self.chars {
            if class(&mut self.classes, c) == Class::Symbol {
                out.extend([' ', c, ' ']);
            } else {
                out.push(c);
            }
        }
        out
    }

    /// Sets pairs that match apart: a space between, and one before or after.
    fn pairs(&mut self, matches: impl Fn(Class, Class) -> bool, before: bool) {
        self.spare_chars.clear();
        let mut i = 0;
        while let Some(&a) = self.chars.get(i) {
            let next = self.chars.get(i + 1).copied();
            if let Some(b) = next
                && matches(class(&mut self.classes, a), class(&mut self.classes, b))
            {
                let apart = if before {
                    [' ', a, ' ', b]
                } else {
                    [a, ' ', b, ' ']
                };
                self.spare_chars.extend(apart);
                i += 2;
            } else {
                self.spare_chars.push(a);
                i += 1;
            }
        }
        std::mem::swap(&mut self.chars, &mut self.spare_chars);
    }
}

/// `&quot;`, `&amp;`, `&lt;` and `&gt;`, in this order.
pub(crate) fn entities(text: &str) -> String {
    text.replace("&quot;", "\"")
        .replace("&amp;", "&")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
}

/// ASCII punctuation that always stands alone: all but apostrophe, comma, hyphen and period.
fn stands_alone(b: u8) -> bool {
    b.is_ascii_punctuation() && !matches!(b, b'\'' | b',' | b'-' | b'.')
}

/// The western rules on a line of UTF-8; `between` runs after the first. No rule looks at a byte beyond ASCII other than
/// as "not a digit", so characters stay whole.
pub(crate) fn western(line: &mut Vec<u8>, spare: &mut Vec<u8>, between: impl FnOnce(&mut Vec<u8>)) {
    spare.clear();
    for &b in line.iter() {
        if stands_alone(b) {
            spare.extend_from_slice(&[b' ', b, b' ']);
        } else {
            spare.push(b);
        }
    }
    between(spare);
    let point = |b: u8| matches!(b, b'.' | b',');
    // A period or comma unless after a digit, unless before a digit; a hyphen after a digit.
    apart(spare, line, |a, b| !a.is_ascii_digit() && point(b), false);
    apart(line, spare, |a, b| point(a) && !b.is_ascii_digit(), true);
    apart(spare, line, |a, b| a.is_ascii_digit() && b == b'-', false);
}

/// Copies bytes, with pairs that match set apart: a space between, and one before or after.
fn apart(from: &[u8], to: &mut Vec<u8>, matches: impl Fn(u8, u8) -> bool, before: bool) {
    to.clear();
    let mut i = 0;
    while i + 1 < from.len() {
        let (a, b) = (from[i], from[i + 1]);
        if matches(a, b) {
            to.extend_from_slice(&if before {
                [b' ', a, b' ', b]
            } else {
                [a, b' ', b, b' ']
            });
            i += 2;
        } else {
            to.push(a);
            i += 1;
        }
    }
    to.extend_from_slice(&from[i..]);
}

/// General categories that mteval-v14 tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Number,
    Punctuation,
    Symbol,
    Other,
}

fn class(known: &mut Map<char, Class>, c: char) -> Class {
    if c.is_ascii() {
        return match c {
            '0'..='9' => Class::Number,
            '$' | '+' | '<' | '=' | '>' | '^' | '`' | '|' | '~' => Class::Symbol,
            c if c.is_ascii_punctuation() => Class::Punctuation,
            _ => Class::Other,
        };
    }
    match known.entry(c) {
        Entry::Occupied(found) => *found.get(),
        Entry::Vacant(place) => *place.insert(general_category(c)),
    }
}

fn general_category(c: char) -> Class {
    static CLASSES: OnceLock<[Option<Regex>; 3]> = OnceLock::new();
    let patterns =
        CLASSES.get_or_init(|| [r"\p{N}", r"\p{P}", r"\p{S}"].map(|p| Regex::new(p).ok()));
    let mut bytes = [0; 4];
    let c = c.encode_utf8(&mut bytes);
    let is = |i: usize| patterns[i].as_ref().is_some_and(|p| p.is_match(c));
    if is(0) {
        Class::Number
    } else if is(1) {
        Class::Punctuation
    } else if is(2) {
        Class::Symbol
    } else {
        Class::Other
    }
}

fn is_chinese(c: char) -> bool {
    matches!(c,
        '\u{2001}'..='\u{2a6d}'
        | '\u{2e80}'..='\u{2fdf}'
        | '\u{2ff0}'..='\u{303f}'
        | '\u{3100}'..='\u{312f}'
        | '\u{31a0}'..='\u{31bf}'
        | '\u{31c0}'..='\u{31ef}'
        | '\u{3200}'..='\u{33ff}'
        | '\u{3400}'..='\u{4db5}'
        | '\u{4e00}'..='\u{9fbb}'
        | '\u{f900}'..='\u{fa2d}'
        | '\u{fa30}'..='\u{fa6a}'
        | '\u{fa70}'..='\u{fad9}'
        | '\u{fe10}'..='\u{fe1f}'
        | '\u{fe30}'..='\u{fe4f}'
        | '\u{ff00}'..='\u{ffef}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(tokenizer: Tokenizer, text: &str) -> String {
        tokenizer.tokens(text).join(" ")
    }

    #[test]
    fn western_rules() {
        for (text, tokens) in [
            ("Hello, world!", "Hello , world !"),
            ("It's 3.14, not 1,000.", "It's 3.14 , not 1,000 ."),
            ("1990-2000 well-known", "1990 - 2000 well-known"),
            ("wait...", "wait . . ."),
            ("a&amp;b &lt;x&gt;", "a & b < x >"),
            ("hy-\nphen\nnext", "hyphen next"),
            ("été. 5.", "été . 5 ."),
            ("", ""),
        ] {
            assert_eq!(joined(Tokenizer::V13a, text), tokens);
        }
    }

    #[test]
    fn other_rules() {
        assert_eq!(joined(Tokenizer::None, " a,  b.\u{1c}c "), "a, b. c");
        assert_eq!(joined(Tokenizer::Character, "a, é"), "a , é");
        // A number keeps the period that ends the text, as in mteval-v14.
        assert_eq!(
            joined(Tokenizer::International, "«1,5» 3€ in 2010."),
            "«1,5 » 3 € in 2010."
        );
        assert_eq!(
            joined(Tokenizer::Chinese, "我爱you。 3.5"),
            "我 爱 you 。 3.5"
        );
        assert_eq!(Tokenizer::by_name("zh"), Some(Tokenizer::Chinese));
        assert_eq!(Tokenizer::by_name("ZH"), None);
    }
}
