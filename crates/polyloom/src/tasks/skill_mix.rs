//! Tasks that ask for several skills at once, on a topic: an inline spec out of two lists of names.

use serde_json::{Map, Value};

use super::spec::{
    Generation, Metric, Prompt, Source, SourceKind, Split, Tags, TaskSpec, TaskType,
};
use crate::error::{MergeError, Result};
use crate::evaluate::metric::skill_mix::draw;
use crate::evaluate::statistics::draw::Seed;

/// What is drawn.
#[derive(Debug, Clone)]
pub struct SkillMix {
    /// Names of skills.
    pub skills: Vec<String>,
    /// Names of topics.
    pub topics: Vec<String>,
    /// Skills a text.
    pub k: usize,
    /// Texts.
    pub count: usize,
    /// Most sentences of a text.
    pub sentences: usize,
    /// Seed of the draws.
    pub seed: u64,
}

impl SkillMix {
    /// The task: a row per combination, all of them different. Its texts are marked by a grader; `polyloom eval` reads the
    /// marks (`skills`, `topic`, `sense`, `length`) beside the texts.
    ///
    /// # Errors
    /// No skill or topic, a name that stands twice, fewer combinations than texts.
    pub fn task(&self, id: &str) -> Result<TaskSpec> {
        let bad = |what: String| MergeError::plan("bad-skill-mix", what);
        for (what, list) in [("skill", &self.skills), ("topic", &self.topics)] {
            let mut seen = std::collections::BTreeSet::new();
            if let Some(twice) = list.iter().find(|name| !seen.insert(*name)) {
                return Err(bad(format!("the {what} `{twice}` stands twice")));
            }
        }
        let seed = Seed::of("skill-mix", &self.seed.to_string());
        let drawn = draw(
            self.skills.len(),
            self.topics.len(),
            self.k,
            self.count,
            &seed,
        );
        let mut spec = TaskSpec::new(id, Source::new(SourceKind::Inline, ""));
        spec.kind = Some(TaskType::Generation);
        spec.title = format!("{} skills in one text", self.k);
        spec.tags = Tags {
            skills: vec!["combining skills".into()],
            tags: vec!["skill-mix".into()],
            ..Tags::default()
        };
        for (i, one) in drawn.map_err(|e| bad(e.to_string()))?.iter().enumerate() {
            let skills: Vec<&str> = one.skills.iter().map(|s| &*self.skills[*s]).collect();
            let mut row = Map::new();
            row.insert("id".into(), i.to_string().into());
            row.insert("topic".into(), self.topics[one.topic].clone().into());
            row.insert("skills".into(), Value::from(skills.join("; ")));
            spec.source.rows.push(row);
        }
        spec.fields.id = "id".into();
        spec.fields.input = "topic".into();
        spec.fields.target = "skills".into();
        spec.splits.named.insert("test".into(), Split::default());
        let most = match self.sentences {
            1 => "one sentence".to_owned(),
            n => format!("at most {n} sentences"),
        };
        spec.prompts.push(Prompt {
            template: format!(
                "Write a text of {most} about {{{{topic}}}} in which each of these can be seen: {{{{skills}}}}.\n\
                 Do not name them.\nText:"
            ),
            ..Prompt::default()
        });
        spec.generation = Generation::default();
        let names = ["skill_mix_full", "skill_mix_all", "skill_mix_fraction"];
        let metric = |(i, name): (usize, &str)| Metric::named(name, i == 0);
        spec.metrics = names.into_iter().enumerate().map(metric).collect();
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn a_row_for_every_combination() {
        let mix = SkillMix {
            skills: names(&["irony", "modus ponens", "metaphor"]),
            topics: names(&["gardens", "chess"]),
            k: 2,
            count: 6,
            sentences: 3,
            seed: 0,
        };
        let spec = mix.task("mix/two").unwrap();
        assert!(super::super::validate::task(&spec).is_empty());
        let mut rows: Vec<String> = spec
            .source
            .rows
            .iter()
            .map(|r| format!("{}: {}", r["topic"], r["skills"]))
            .collect();
        rows.sort();
        rows.dedup();
        assert_eq!(rows.len(), 6);
        assert_eq!(rows[0], "\"chess\": \"irony; metaphor\"");
        let more = SkillMix {
            count: 7,
            ..mix.clone()
        };
        assert_eq!(more.task("x").unwrap_err().code(), "bad-skill-mix");
        let twice = SkillMix {
            topics: names(&["a", "a"]),
            ..mix
        };
        assert!(
            twice
                .task("x")
                .unwrap_err()
                .to_string()
                .contains("`a` stands twice")
        );
    }
}
