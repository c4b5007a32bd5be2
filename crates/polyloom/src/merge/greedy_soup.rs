//! `greedy_soup`: an average of the models that help, chosen by scores that were measured elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use super::method::{
    Base, Chunk, Golden, Job, Kernel, Kind, Method, Missing, Param, Scope, Spec, Unset,
};
use crate::error::{MergeError, Result};
use crate::suggest;

static SPEC: Spec = Spec {
    name: "greedy_soup",
    summary: "Averages models from the best down, keeping each one that does not make the average worse",
    source: "Model soups (Wortsman et al. 2022), recipe 1; methods section 3.12",
    formula: "Models sorted by score, best first (higher is better, equal scores in file order); the soup starts as the first; each next model stays in it if the score of the average with it is not below that of the soup so far. `R = mean of the soup`. The score file has a line `name,score` per model and, for an average that has to be judged, a line `a+b,score` (names in any order). Empty lines, lines that begin with `#` and a first line `name,score` are skipped.",
    differs: "The released code evaluates averages while it searches. Here scores are measured elsewhere: the first average whose score the file lacks is named, with the merge that makes it, and nothing is written. Scores of single models alone never decide about an average.",
    cost: "one pass, O(elements x models in the soup)",
    base: Base::Ignored,
    experts: (1, usize::MAX),
    deltas: false,
    scope: Scope::Model,
    params: &[Param::shared(
        "scores",
        Kind::File,
        Unset::Required,
        "File of lines `name,score` for models and `a+b,score` for averages; higher is better.",
    )
    .whole()],
    on: None,
    golden: Golden::None("hand-computed test"),
    missing: Missing::Refuse,
};

/// The entries of this file.
pub static METHODS: &[&dyn Method] = &[&GreedySoup];

struct GreedySoup;

/// Average of some of the inputs.
struct Soup(Vec<usize>);

/// Longest score file that is read; a line per subset of thousands of models fits.
const LONGEST: u64 = 16 << 20;

/// A set of models (indices) and the score of their average, in file order.
type Scores = Vec<(BTreeSet<usize>, f64)>;

/// Reads `name,score` lines; `names` are the inputs.
fn parse(text: &str, file: &str, names: &[String]) -> Result<Scores> {
    let mut scores = Scores::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        let header = scores.is_empty() && line.replace(' ', "") == "name,score";
        if line.is_empty() || line.starts_with('#') || header {
            continue;
        }
        let wrong = |message: String| {
            MergeError::plan("bad-scores", message).at(format!("{file}:{}", number + 1))
        };
        let Some((who, score)) = line.rsplit_once(',') else {
            return Err(wrong(format!("`{line}` is not of the form name,score")));
        };
        let score = score
            .trim()
            .parse::<f64>()
            .ok()
            .filter(|s| s.is_finite())
            .ok_or_else(|| wrong(format!("`{}` is not a score", score.trim())))?;
        let find = |name: &str| names.iter().position(|n| n == name);
        let who = who.trim();
        let set: BTreeSet<usize> = match find(who) {
            Some(one) => BTreeSet::from([one]),
            None => who
                .split('+')
                .map(|name| {
                    let name = name.trim();
                    find(name).ok_or_else(|| {
                        let known: Vec<&str> = names.iter().map(String::as_str).collect();
                        let error = wrong(format!("`{name}` is not an input of this merge"));
                        match suggest::nearest(name, &known, 1).first() {
                            Some(near) => error.hint(format!("did you mean `{near}`?")),
                            None => error.hint(format!("the inputs are {}", names.join(", "))),
                        }
                    })
                })
                .collect::<Result<_>>()?,
        };
        if scores.iter().any(|(other, _)| *other == set) {
            return Err(wrong(format!("`{who}` has a score already")));
        }
        scores.push((set, score));
    }
    Ok(scores)
}

/// The soup (indices in the order they joined) and its score.
fn choose(scores: &Scores, file: &str, names: &[String]) -> Result<(Vec<usize>, f64)> {
    let of: BTreeMap<&BTreeSet<usize>, f64> = scores.iter().map(|(s, x)| (s, *x)).collect();
    let mut order: Vec<(usize, f64)> = scores
        .iter()
        .filter(|(set, _)| set.len() == 1)
        .filter_map(|(set, score)| Some((*set.first()?, *score)))
        .collect();
    if let Some(lacking) = (0..names.len()).find(|i| !order.iter().any(|(m, _)| m == i)) {
        let name = &names[lacking];
        return Err(
            MergeError::plan("missing-score", format!("has no score of `{name}`"))
                .at(file)
                .hint(format!(
                    "add the line `{name},SCORE`, or leave the model out of the merge"
                )),
        );
    }
    order.sort_by(|a, b| b.1.total_cmp(&a.1)); // Stable: equal scores stay in file order.
    let Some(&(first, mut best)) = order.first() else {
        return Err(MergeError::plan("missing-score", "holds no scores").at(file));
    };
    let mut soup = vec![first];
    for &(candidate, _) in &order[1..] {
        let with: BTreeSet<usize> = soup.iter().copied().chain([candidate]).collect();
        let Some(score) = of.get(&with) else {
            let members: Vec<&str> = soup
                .iter()
                .chain([&candidate])
                .map(|i| names[*i].as_str())
                .collect();
            return Err(MergeError::plan(
                "missing-score",
                format!(
                    "has no score of the average of {}, which decides whether `{}` stays",
                    members.join(", "),
                    names[candidate]
                ),
            )
            .at(file)
            .hint(format!(
                "merge these models with `--method linear`, evaluate the result and add the line `{},SCORE`",
                members.join("+")
            )));
        };
        if *score >= best {
            best = *score;
            soup.push(candidate);
        }
    }
    Ok((soup, best))
}

/// Reads the score file of a job and decides.
fn soup(job: &Job) -> Result<(Vec<usize>, f64)> {
    let Some(tensor) = job.tensors.first() else {
        return Ok(((0..job.experts.len()).collect(), 0.0));
    };
    let file = tensor.shared.word("scores");
    let unreadable = |e: std::io::Error| {
        MergeError::plan("bad-scores", format!("cannot be read as scores: {e}"))
            .at(file)
            .hint("`scores` names a text file with a line name,score per model")
    };
    let length = std::fs::metadata(file).map_err(unreadable)?.len();
    if length > LONGEST {
        return Err(unreadable(std::io::Error::other(format!(
            "it has {length} bytes, more than {LONGEST}"
        ))));
    }
    let text = std::fs::read_to_string(file).map_err(unreadable)?;
    choose(&parse(&text, file, &job.experts)?, file, &job.experts)
}

impl Method for GreedySoup {
    fn spec(&self) -> &'static Spec {
        &SPEC
    }

    fn kernel(&self, job: &Job) -> Result<Box<dyn Kernel>> {
        let (mut members, _) = soup(job)?;
        members.sort_unstable();
        Ok(Box::new(Soup(members)))
    }

    fn check(&self, job: &Job) -> Result<Vec<String>> {
        let (members, score) = soup(job)?;
        let names: Vec<&str> = members.iter().map(|i| job.experts[*i].as_str()).collect();
        Ok(vec![format!(
            "the soup is the average of {} of {} models (score {score}): {}",
            names.len(),
            job.experts.len(),
            names.join(", ")
        )])
    }
}

impl Kernel for Soup {
    fn apply(&self, chunk: &Chunk, out: &mut [f32]) -> Result<()> {
        let inputs: Vec<&[f32]> = self.0.iter().map(|i| chunk.inputs[*i]).collect();
        super::linear::weighted_sum(&vec![1.0; inputs.len()], &inputs, out);
        let n = inputs.len() as f32;
        out.iter_mut().for_each(|x| *x /= n);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::merged;
    use super::*;

    fn names() -> Vec<String> {
        ["a", "b", "c"].map(str::to_owned).to_vec()
    }

    fn decide(text: &str) -> Result<(Vec<usize>, f64)> {
        choose(
            &parse(text, "scores.csv", &names())?,
            "scores.csv",
            &names(),
        )
    }

    #[test]
    fn a_model_stays_if_the_average_does_not_get_worse() {
        // b leads; with c the average falls to 0.6, so c goes; with a it is 0.9 again, which is not worse.
        let file = "name,score\n# dev set\na,0.5\nb,0.9\nc,0.8\n\nc+b, 0.6\nb+a,0.9\n";
        assert_eq!(decide(file).unwrap(), (vec![1, 0], 0.9));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scores.csv");
        std::fs::write(&path, file).unwrap();
        let got = merged(
            "greedy_soup",
            &[("scores", json!(path.to_str().unwrap()))],
            &[&[1.0, 2.0], &[3.0, -2.0], &[100.0, 100.0]],
        );
        assert_eq!(got, [2.0, 0.0]);
    }

    #[test]
    fn equal_scores_stay_in_file_order() {
        // c comes before a; their average is worse, and so is c with b: only c is left.
        assert_eq!(
            decide("c,1\na,1\nb,0\nc+a,0.5\nb+c,0.9").unwrap(),
            (vec![2], 1.0)
        );
        assert_eq!(
            decide("a,1\nc,1\nb,0\nc+a,0.5\na+b,0.9").unwrap(),
            (vec![0], 1.0)
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = decide("a,1\nb,2\nc,3\n").unwrap_err();
        assert!(error.to_string().contains("average of c, b"), "{error}");
        assert!(error.hints()[0].contains("`c+b,SCORE`"), "{error}");
        let error = decide("a,1\nb,2\n").unwrap_err();
        assert!(error.to_string().contains("no score of `c`"), "{error}");
        for (text, part) in [
            ("a,1\nbb,2", ":2: `bb` is not an input"),
            ("a,high", "`high` is not a score"),
            ("a,NaN", "`NaN` is not a score"),
            ("a 1", "not of the form"),
            ("a,1\nb+a,1\na+b,1", ":3: `a+b` has a score already"),
        ] {
            let error = decide(text).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
