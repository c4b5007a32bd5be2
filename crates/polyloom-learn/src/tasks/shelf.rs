//! Rows read once for all systems that read them alike.

use std::collections::HashMap;
use std::rc::Rc;

use polyloom::tasks::load::Loader;
use polyloom::tasks::spec::TaskSpec;

use super::head::Feature;
use super::rows::{Reader, Rows};
use super::search::Search;
use crate::error::Result;

/// Rows of tasks as a reader takes them, made once for all systems that read alike.
pub struct Shelf {
    split: String,
    limit: Option<usize>,
    rows: HashMap<(String, bool), Rc<Rows>>,
    searches: HashMap<String, Rc<Search>>,
}

impl Shelf {
    /// Empty: of a split, at most `limit` rows of a task.
    #[must_use]
    pub fn new(split: &str, limit: Option<usize>) -> Self {
        Self {
            split: split.to_owned(),
            limit,
            rows: HashMap::new(),
            searches: HashMap::new(),
        }
    }

    /// The split.
    #[must_use]
    pub fn split(&self) -> &str {
        &self.split
    }

    /// Another one for the same rows, empty.
    #[must_use]
    pub fn alike(&self) -> Self {
        Self::new(&self.split, self.limit)
    }

    /// The rows of a task for heads of a feature.
    ///
    /// # Errors
    /// As [`Rows::read`].
    pub fn rows(
        &mut self,
        spec: &TaskSpec,
        loader: &Loader<'_>,
        reader: &Reader,
        feature: Feature,
    ) -> Result<Rc<Rows>> {
        let key = (spec.id.clone(), feature.is_of_two());
        if let Some(rows) = self.rows.get(&key) {
            return Ok(rows.clone());
        }
        let read = Rows::read(spec, loader, &self.split, reader, feature, self.limit)?;
        let rows = Rc::new(read);
        self.rows.insert(key, rows.clone());
        Ok(rows)
    }

    /// The queries and documents of a retrieval task; the limit is one of queries.
    ///
    /// # Errors
    /// As [`Search::read`].
    pub fn search(
        &mut self,
        spec: &TaskSpec,
        loader: &Loader<'_>,
        reader: &Reader,
    ) -> Result<Rc<Search>> {
        if let Some(search) = self.searches.get(&spec.id) {
            return Ok(search.clone());
        }
        let search = Rc::new(Search::read(spec, loader, &self.split, reader, self.limit)?);
        self.searches.insert(spec.id.clone(), search.clone());
        Ok(search)
    }
}
