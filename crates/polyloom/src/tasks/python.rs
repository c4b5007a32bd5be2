//! Values and methods as Python spells them, for templates written for Jinja2.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// `str(value)`: text as it is, everything else as [`repr`].
pub fn str(value: &Value) -> String {
    value.as_str().map_or_else(|| repr(value), str::to_owned)
}

/// `repr(value)`: `None`, `True`, `1.0`, `1e+20`, `['a', 'b']`, `{'k': 1}`.
pub fn repr(value: &Value) -> String {
    match value.kind() {
        ValueKind::None => "None".into(),
        ValueKind::Bool => if value.is_true() { "True" } else { "False" }.into(),
        ValueKind::String => quoted(value.as_str().unwrap_or_default()),
        ValueKind::Number if !value.is_integer() => {
            f64::try_from(value.clone()).map_or_else(|_| value.to_string(), float)
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value
                .try_iter()
                .map(|i| i.map(|v| repr(&v)).collect::<Vec<_>>());
            format!("[{}]", items.unwrap_or_default().join(", "))
        }
        ValueKind::Map => {
            let keys = value
                .try_iter()
                .map(Iterator::collect::<Vec<_>>)
                .unwrap_or_default();
            let entry = |key: &Value| {
                let item = value.get_item(key).unwrap_or_default();
                format!("{}: {}", repr(key), repr(&item))
            };
            format!(
                "{{{}}}",
                keys.iter().map(entry).collect::<Vec<_>>().join(", ")
            )
        }
        _ => value.to_string(),
    }
}

/// A float as `repr` writes it: shortest digits that read back the same, `e` form below 1e-4 and from 1e16.
pub fn float(x: f64) -> String {
    if x.is_nan() {
        return "nan".into();
    }
    if x.is_infinite() {
        return if x > 0.0 { "inf" } else { "-inf" }.into();
    }
    let size = x.abs();
    if size != 0.0 && !(1e-4..1e16).contains(&size) {
        let text = format!("{x:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, power) = match exponent.strip_prefix('-') {
            Some(power) => ('-', power),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{power:0>2}");
    }
    let text = x.to_string();
    if text.contains('.') {
        text
    } else {
        text + ".0"
    }
}

fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => out += "\\\\",
            '\n' => out += "\\n",
            '\r' => out += "\\r",
            '\t' => out += "\\t",
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => out += &format!("\\x{:02x}", c as u32),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

fn wrong(what: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

/// The methods of Python's text, lists and dictionaries that task files use.
///
/// # Errors
/// An unknown method, a missing or wrong argument, `index` of what is not there.
pub fn method(value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let text = |i: usize| args.get(i).and_then(Value::as_str);
    let need = |i: usize| text(i).ok_or_else(|| wrong(format!(".{name}() needs text")));
    if let Some(s) = value.as_str() {
        let set: Option<Vec<char>> = text(0).map(|t| t.chars().collect());
        let cut = |c: char| set.as_ref().map_or(c.is_whitespace(), |s| s.contains(&c));
        return Ok(match name {
            "strip" => s.trim_matches(cut).into(),
            "lstrip" => s.trim_start_matches(cut).into(),
            "rstrip" => s.trim_end_matches(cut).into(),
            "upper" => s.to_uppercase().into(),
            "lower" => s.to_lowercase().into(),
            "capitalize" => capital(s).into(),
            "title" => title(s).into(),
            "startswith" => s.starts_with(need(0)?).into(),
            "endswith" => s.ends_with(need(0)?).into(),
            "isdigit" => (!s.is_empty() && s.chars().all(|c| c.is_ascii_digit())).into(),
            "count" => s.matches(need(0)?).count().into(),
            "replace" => match args.get(2).and_then(Value::as_i64) {
                Some(n) if n >= 0 => s
                    .replacen(need(0)?, need(1)?, usize::try_from(n).unwrap_or(usize::MAX))
                    .into(),
                _ => s.replace(need(0)?, need(1)?).into(),
            },
            "find" => match s.find(need(0)?) {
                Some(byte) => s[..byte].chars().count().into(),
                None => (-1).into(),
            },
            "index" => match s.find(need(0)?) {
                Some(byte) => s[..byte].chars().count().into(),
                None => return Err(wrong("substring not found".into())),
            },
            "join" => {
                let items = args
                    .first()
                    .ok_or_else(|| wrong(".join() needs a list".into()))?;
                let items: Vec<String> = items.try_iter()?.map(|v| str(&v)).collect();
                items.join(s).into()
            }
            "split" | "rsplit" => split(s, text(0), args.get(1), name == "rsplit")?,
            "splitlines" => s.lines().map(Value::from).collect(),
            _ => return unknown(value, name),
        });
    }
    match (value.kind(), name) {
        (ValueKind::Seq | ValueKind::Iterable, "index") => {
            let wanted = args
                .first()
                .ok_or_else(|| wrong(".index() needs a value".into()))?;
            let at = value.try_iter()?.position(|v| v == *wanted);
            at.map(Value::from)
                .ok_or_else(|| wrong(format!("{} is not in the list", repr(wanted))))
        }
        (ValueKind::Seq | ValueKind::Iterable, "count") => {
            let wanted = args
                .first()
                .ok_or_else(|| wrong(".count() needs a value".into()))?;
            Ok(value.try_iter()?.filter(|v| v == wanted).count().into())
        }
        (ValueKind::Map, "keys") => Ok(value.try_iter()?.collect()),
        (ValueKind::Map, "values" | "items") => {
            let keys: Vec<Value> = value.try_iter()?.collect();
            let entry = |k: Value| {
                let item = value.get_item(&k)?;
                Ok(if name == "values" {
                    item
                } else {
                    Value::from(vec![k, item])
                })
            };
            keys.into_iter()
                .map(entry)
                .collect::<Result<Vec<_>, _>>()
                .map(Value::from)
        }
        (ValueKind::Map, "get") => {
            let key = args
                .first()
                .ok_or_else(|| wrong(".get() needs a key".into()))?;
            let item = value.get_item(key)?;
            let none = || args.get(1).cloned().unwrap_or_else(|| Value::from(()));
            Ok(if item.is_undefined() { none() } else { item })
        }
        _ => unknown(value, name),
    }
}

fn unknown(value: &Value, name: &str) -> Result<Value, Error> {
    let what = format!("{} has no method .{name}() here", value.kind());
    Err(Error::new(ErrorKind::UnknownMethod, what))
}

fn split(s: &str, by: Option<&str>, most: Option<&Value>, right: bool) -> Result<Value, Error> {
    let most = most
        .and_then(Value::as_i64)
        .and_then(|n| usize::try_from(n).ok());
    let parts: Vec<&str> = match (by, most) {
        (Some(""), _) => return Err(wrong("empty separator".into())),
        (None, None) => s.split_whitespace().collect(),
        (None, Some(_)) => return Err(wrong(".split() with a count needs a separator".into())),
        (Some(by), None) => s.split(by).collect(),
        (Some(by), Some(n)) if right => {
            let mut parts: Vec<&str> = s.rsplitn(n + 1, by).collect();
            parts.reverse();
            parts
        }
        (Some(by), Some(n)) => s.splitn(n + 1, by).collect(),
    };
    Ok(parts.into_iter().map(Value::from).collect())
}

fn capital(s: &str) -> String {
    let mut chars = s.chars();
    let first = chars.next().map(|c| c.to_uppercase().collect::<String>());
    first.unwrap_or_default() + &chars.as_str().to_lowercase()
}

/// `str.title()`: a letter after anything that is no letter is upper case, every other one lower case.
fn title(s: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for c in s.chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_alphabetic();
    }
    out
}

/// `format % args` for `%s`, `%d`, `%i`, `%r`, `%f`, `%.Nf` and `%%`.
///
/// # Errors
/// Another conversion, or a number of arguments that does not fit.
pub fn percent(format: &str, args: &[Value]) -> Result<String, Error> {
    let mut args = args.iter();
    let mut out = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out += &rest[..at];
        rest = &rest[at + 1..];
        let end = rest.find(|c: char| c.is_ascii_alphabetic() || c == '%');
        let end = end.ok_or_else(|| wrong("incomplete format".into()))?;
        let (flags, kind) = (&rest[..end], rest[end..].chars().next().unwrap_or('%'));
        rest = &rest[end + 1..];
        if kind == '%' {
            out.push('%');
            continue;
        }
        let value = args
            .next()
            .ok_or_else(|| wrong("not enough arguments for the format".into()))?;
        match (kind, flags) {
            ('s', "") => out += &str(value),
            ('r', "") => out += &repr(value),
            ('d' | 'i', "") => {
                let x = f64::try_from(value.clone())?;
                out += &format!("{:.0}", x.trunc());
            }
            ('f', _) => {
                let digits = match flags.strip_prefix('.') {
                    Some(n) => n
                        .parse()
                        .map_err(|_| wrong(format!("unknown format %{flags}f")))?,
                    None if flags.is_empty() => 6,
                    None => return Err(wrong(format!("unknown format %{flags}f"))),
                };
                let x = f64::try_from(value.clone())?;
                out += &format!("{x:.digits$}");
            }
            _ => return Err(wrong(format!("unknown format %{flags}{kind}"))),
        }
    }
    out += rest;
    match args.next() {
        Some(_) => Err(wrong("not all arguments fit the format".into())),
        None => Ok(out),
    }
}

/// Rewrites `'...' % operand` inside tags to a filter, because the engine knows `%` for numbers only. The operand is a
/// parenthesised list or a name with attributes and indices.
pub fn rewrite_percent(template: &str) -> String {
    let bytes = template.as_bytes();
    let mut out = String::with_capacity(template.len());
    let (mut i, mut copied, mut inside) = (0, 0, false);
    while i < bytes.len() {
        let two = &bytes[i..(i + 2).min(bytes.len())];
        if !inside {
            inside = two == b"{{" || two == b"{%";
            i += if inside { 2 } else { 1 };
            continue;
        }
        if two == b"}}" || two == b"%}" {
            inside = false;
            i += 2;
            continue;
        }
        if bytes[i] != b'\'' && bytes[i] != b'"' {
            i += 1;
            continue;
        }
        let end = literal(bytes, i);
        let mut at = end;
        while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        if bytes.get(at) == Some(&b'%') && bytes.get(at + 1) != Some(&b'}') {
            let mut start = at + 1;
            while bytes.get(start).is_some_and(u8::is_ascii_whitespace) {
                start += 1;
            }
            if let Some(stop) = operand(bytes, start) {
                out += &template[copied..end];
                let operand = template[start..stop].trim();
                let bare = operand.strip_prefix('(').and_then(|o| o.strip_suffix(')'));
                out += &format!(
                    "|percent({})",
                    bare.unwrap_or(operand).trim_end_matches(',')
                );
                copied = stop;
                i = stop;
                continue;
            }
        }
        i = end;
    }
    out + &template[copied..]
}

/// The end of the text literal that starts at `i`.
fn literal(bytes: &[u8], i: usize) -> usize {
    let mut at = i + 1;
    while at < bytes.len() && bytes[at] != bytes[i] {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// The end of the operand that starts at `start`.
fn operand(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    let mut depth = 0usize;
    while at < bytes.len() {
        match bytes[at] {
            b'(' | b'[' => depth += 1,
            b')' | b']' if depth == 0 => break,
            b')' | b']' => {
                depth -= 1;
                if depth == 0 && bytes[start] == b'(' {
                    return Some(at + 1);
                }
            }
            b'\'' | b'"' => {
                at = literal(bytes, at);
                continue;
            }
            c if depth == 0 && !(c.is_ascii_alphanumeric() || c == b'_' || c == b'.') => break,
            _ => {}
        }
        at += 1;
    }
    (at > start && depth == 0).then_some(at)
}
