//! Rows of a table as lines of text: CSV, tab-separated, or JSON.

use std::io::Write;

use super::table::{Cell, Table};

/// Writes rows one after the other.
pub enum Lines<W: Write> {
    /// Cells behind a delimiter; the names of the columns stand first where they were asked for.
    Delimited(Box<csv::Writer<W>>, String),
    /// A JSON object a row, without its missing entries.
    Json(W),
}

impl<W: Write> Lines<W> {
    /// With this delimiter, or as JSON.
    pub fn new(out: W, delimiter: Option<u8>) -> Self {
        match delimiter {
            Some(delimiter) => {
                let writer = csv::WriterBuilder::new()
                    .delimiter(delimiter)
                    .from_writer(out);
                Self::Delimited(Box::new(writer), String::new())
            }
            None => Self::Json(out),
        }
    }

    /// The names of the columns; nothing of JSON, whose rows have them.
    ///
    /// # Errors
    /// What `W` reports.
    pub fn header(&mut self, table: &Table) -> std::io::Result<()> {
        match self {
            Self::Delimited(writer, _) => {
                let names = table.columns().map(|(n, _)| n);
                writer.write_record(names).map_err(Into::into)
            }
            Self::Json(_) => Ok(()),
        }
    }

    /// A row.
    ///
    /// # Errors
    /// What `W` reports.
    pub fn row(&mut self, table: &Table, row: usize) -> std::io::Result<()> {
        match self {
            Self::Delimited(writer, text) => {
                for (_, column) in table.columns() {
                    match column.cell(row) {
                        Cell::Text(cell) => writer.write_field(cell)?,
                        cell => {
                            text.clear();
                            cell.push_text(text);
                            writer.write_field(&*text)?;
                        }
                    }
                }
                writer.write_record(None::<&[u8]>).map_err(Into::into)
            }
            Self::Json(out) => {
                let mut first = true;
                for (name, column) in table.columns() {
                    let cell = column.cell(row);
                    if cell == Cell::Null {
                        continue;
                    }
                    out.write_all(if std::mem::take(&mut first) {
                        b"{"
                    } else {
                        b","
                    })?;
                    serde_json::to_writer(&mut *out, name)?;
                    out.write_all(b":")?;
                    match cell {
                        Cell::Text(text) => serde_json::to_writer(&mut *out, text)?,
                        Cell::Nested(value) => serde_json::to_writer(&mut *out, value)?,
                        cell => serde_json::to_writer(&mut *out, &cell.to_json())?,
                    }
                }
                out.write_all(if first { b"{}\n" } else { b"}\n" })
            }
        }
    }

    /// What was written to.
    ///
    /// # Errors
    /// What `W` reports.
    pub fn finish(self) -> std::io::Result<W> {
        match self {
            Self::Delimited(writer, _) => {
                writer.into_inner().map_err(csv::IntoInnerError::into_error)
            }
            Self::Json(mut out) => {
                out.flush()?;
                Ok(out)
            }
        }
    }
}
