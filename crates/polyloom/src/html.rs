//! What every HTML page of Polyloom shares: escaping, the frame around a page, tables of tinted cells.
//!
//! A page is one file: styles and script stand in it, nothing is fetched. Texts of strangers (names of files, answers of
//! models) pass through [`escape`] or [`script_json`], and a content security policy lets no script run but the page's own.

use std::fmt::Write as _;

use serde_json::Value;
use sha2::{Digest, Sha256};

const BASE: &str = include_str!("html/base.css");

/// A page to be.
pub(crate) struct Page<'a> {
    /// Plain text.
    pub title: &'a str,
    /// After the styles that all pages share.
    pub style: &'a str,
    /// HTML between `<body>` and `</body>`.
    pub body: &'a str,
    /// The one script that may run.
    pub script: Option<&'a str>,
}

impl Page<'_> {
    /// The whole file.
    pub fn whole(&self) -> String {
        let script_source = self.script.map_or_else(
            || "'none'".to_owned(),
            |s| format!("'sha256-{}'", base64(&Sha256::digest(s.as_bytes()))),
        );
        let script = self
            .script
            .map_or_else(String::new, |s| format!("<script>{s}</script>\n"));
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src {script_source}; base-uri 'none'; form-action 'none'\"><meta name=\"generator\" content=\"polyloom {}\"><title>{}</title><style>\n{BASE}{}</style></head><body>\n{}{script}</body></html>\n",
            env!("CARGO_PKG_VERSION"),
            escape(self.title),
            self.style,
            self.body
        )
    }
}

/// Text as it may stand in HTML, attributes included.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Escaped text of several lines: line breaks and tabs stay.
pub(crate) fn escape_lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (i, line) in text.lines().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        for (j, part) in line.split('\t').enumerate() {
            if j > 0 {
                out.push('\t');
            }
            out.push_str(&escape(part));
        }
    }
    out
}

/// Escaped text in which `` `words` `` are set as code.
pub(crate) fn rich(text: &str) -> String {
    let mut out = String::new();
    for (i, part) in text.split('`').enumerate() {
        if i % 2 == 1 {
            let _ = write!(out, "<code>{}</code>", escape(part));
        } else {
            out.push_str(&escape(part));
        }
    }
    out
}

/// JSON as it may stand within `<script type="application/json">`: nothing in it ends the element or opens a comment.
pub(crate) fn script_json(value: &Value) -> String {
    let text = value.to_string();
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out
}

/// One cell of a heat map.
#[derive(Default)]
pub(crate) struct Cell {
    /// What stands in it.
    pub shown: String,
    /// What it is, for readers of titles and screen readers.
    pub title: String,
    /// Colour: `h` hot, `c` cold, `g` green; and how much of it, 0 to 1.
    pub tint: Option<(char, f64)>,
    /// Where it leads to, relative to the page; empty for nowhere.
    pub link: String,
}

/// Appends a cell.
pub(crate) fn td(out: &mut String, cell: &Cell) {
    let title = match cell.title.as_str() {
        "" => String::new(),
        title => format!(" title=\"{}\"", escape(title)),
    };
    let mut shown = escape(&cell.shown);
    if !cell.link.is_empty() {
        shown = format!("<a href=\"{}\">{shown}</a>", escape(&cell.link));
    }
    let _ = match cell.tint {
        // At most 62 %: text stays readable on it in both schemes.
        Some((class, much)) => write!(
            out,
            "<td class=\"{class}\" style=\"--v:{:.0}%\"{title}>{shown}</td>",
            much.clamp(0.0, 1.0) * 62.0,
        ),
        None => write!(out, "<td class=\"self\"{title}>{shown}</td>"),
    };
}

/// Appends a table of tinted cells that scrolls within itself.
pub(crate) fn heat(
    out: &mut String,
    label: &str,
    corner: &str,
    columns: &[String],
    rows: &[String],
    cell: impl Fn(usize, usize) -> Cell,
) {
    let _ = write!(
        out,
        "<div class=\"scroll heat\" tabindex=\"0\" role=\"region\" aria-label=\"{}\"><table><thead><tr><th scope=\"col\">{}</th>",
        escape(label),
        escape(corner)
    );
    for column in columns {
        // Pair tables count their columns: `3 name` is headed by 3.
        let short: String = match column.split_once(' ') {
            Some((number, _)) if number.parse::<usize>().is_ok() => number.to_owned(),
            _ => column.chars().take(18).collect(),
        };
        let _ = write!(
            out,
            "<th scope=\"col\" title=\"{}\">{}</th>",
            escape(column),
            escape(&short)
        );
    }
    out.push_str("</tr></thead><tbody>");
    for (r, name) in rows.iter().enumerate() {
        let name = escape(name);
        let _ = write!(out, "<tr><th scope=\"row\" title=\"{name}\">{name}</th>");
        for c in 0..columns.len() {
            td(out, &cell(r, c));
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>\n");
}

/// Base64 with padding (RFC 4648): the form of hashes in a content security policy.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let word = three
            .iter()
            .fold(0u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - three.len()));
        for i in 0..4 {
            if i <= three.len() {
                out.push(LETTERS[(word >> (18 - 6 * i)) as usize & 63] as char);
            } else {
                out.push('=');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out() {
        assert_eq!(escape("<b a='\"&\n"), "&lt;b a=&#39;&quot;&amp;\u{fffd}");
        assert_eq!(rich("use `a<b` & c"), "use <code>a&lt;b</code> &amp; c");
        assert_eq!(escape_lines("a\r\n\tb<\u{1b}"), "a\n\tb&lt;\u{fffd}");
        let json = script_json(&serde_json::json!({"</script><!--": "\u{2028}&"}));
        assert_eq!(json, r#"{"\u003c/script\u003e\u003c!--":"\u2028\u0026"}"#);
        let back: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(back["</script><!--"], "\u{2028}&");
    }

    #[test]
    fn base64_of_the_standard() {
        // The test vectors of RFC 4648, section 10.
        let words = ["", "f", "fo", "foo", "foob", "fooba", "foobar"];
        let codes = [
            "", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy",
        ];
        assert_eq!(words.map(|w| base64(w.as_bytes())), codes);
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }
}
