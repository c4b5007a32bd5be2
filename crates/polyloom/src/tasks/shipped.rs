//! The task specs of the folder `tasks/` of the repository, built in.

macro_rules! shipped {
    ($name:literal) => {
        ($name, include_str!(concat!("../../../../tasks/", $name)))
    };
}

/// File name below `tasks/` and text.
pub const SPECS: &[(&str, &str)] = &[
    shipped!("groups/intents.toml"),
    shipped!("groups/omniglot.toml"),
    shipped!("groups/pairs.toml"),
    shipped!("groups/sentiment.toml"),
    shipped!("groups/tables.toml"),
    shipped!("groups/text.toml"),
    shipped!("groups/tweets.toml"),
    shipped!("retrieval/banking77_same_intent.toml"),
    shipped!("retrieval/clinc150_same_intent.toml"),
    shipped!("synth/fields.toml"),
    shipped!("synth/log.toml"),
    shipped!("synth/multitab.toml"),
    shipped!("synth/shapes.toml"),
    shipped!("tabular/adult_census.toml"),
    shipped!("tabular/bank_marketing.toml"),
    shipped!("tabular/energy_efficiency.toml"),
    shipped!("tabular/landmine.toml"),
    shipped!("tabular/oes10.toml"),
    shipped!("tabular/open_bandit_ctr.toml"),
    shipped!("tabular/parkinsons.toml"),
    shipped!("tabular/school.toml"),
    shipped!("text/banking77.toml"),
    shipped!("text/clinc150.toml"),
    shipped!("text/clinc150_domains.toml"),
    shipped!("text/mpqa.toml"),
    shipped!("text/msrp.toml"),
    shipped!("text/nlupp_banking.toml"),
    shipped!("text/restaurant8k.toml"),
    shipped!("text/sick_entailment.toml"),
    shipped!("text/sick_relatedness.toml"),
    shipped!("text/sst2.toml"),
    shipped!("text/sst5.toml"),
    shipped!("text/subj.toml"),
    shipped!("text/trec50.toml"),
    shipped!("text/trec6.toml"),
    shipped!("text/tweet_emoji.toml"),
    shipped!("text/tweet_emotion.toml"),
    shipped!("text/tweet_hate.toml"),
    shipped!("text/tweet_offensive.toml"),
    shipped!("text/tweet_stance.toml"),
    shipped!("vision/digits.toml"),
    shipped!("vision/fashion_mnist_900.toml"),
    shipped!("vision/omniglot_alphabet.toml"),
    shipped!("vision/omniglot_balinese.toml"),
    shipped!("vision/omniglot_early_aramaic.toml"),
    shipped!("vision/omniglot_greek.toml"),
    shipped!("vision/omniglot_japanese_katakana.toml"),
    shipped!("vision/omniglot_korean.toml"),
    shipped!("vision/omniglot_latin.toml"),
    shipped!("vision/sign_digits.toml"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::Catalogue;

    #[test]
    fn every_spec_of_the_folder_is_built_in_and_right() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tasks");
        let mut catalogue = Catalogue::default();
        let ids = catalogue.add_path(&root).unwrap();
        let shipped = Catalogue::shipped().unwrap();
        assert_eq!(ids.len(), SPECS.len());
        assert_eq!(shipped.tasks().count(), catalogue.tasks().count());
        assert!(shipped.tasks().count() >= 30);
        for group in shipped.groups() {
            assert!(
                !shipped.members(&group.id).unwrap().is_empty(),
                "{}",
                group.id
            );
        }
    }

    /// `POLYLOOM_DATA`, else `../shared/data` beside the checkout.
    fn data() -> Option<std::path::PathBuf> {
        let beside = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
        let given = std::env::var_os("POLYLOOM_DATA").map(std::path::PathBuf::from);
        given.into_iter().chain([beside]).find(|p| p.is_dir())
    }

    #[test]
    fn every_shipped_task_opens_and_passes_its_check() {
        use crate::tasks::check::{Level, check};
        use crate::tasks::{Roots, data::Limits, load::Loader};
        let Some(data) = data() else {
            #[allow(clippy::print_stderr, reason = "a skipped test says so")]
            {
                eprintln!("skipped: no data; POLYLOOM_DATA names its folder");
            }
            return;
        };
        let roots = Roots(vec![data]);
        for entry in Catalogue::shipped().unwrap().tasks() {
            let folder = roots.folder(entry).unwrap();
            let loader = Loader::new(&entry.spec, folder, Limits::default());
            let report = check(&entry.spec, &loader).unwrap();
            assert!(report.worst() < Some(Level::Failure), "{report:?}");
            assert_eq!(report.splits.len(), entry.spec.splits.named.len());
            assert!(report.splits.iter().all(|s| s.rows > 0) && report.hash.is_some());
            if let Some(prompt) = entry.spec.prompts.first() {
                let renderer = crate::tasks::prompt::Renderer::new();
                let mut asked = 0;
                loader
                    .rows("test", &mut |table| {
                        for row in 0..table.rows().min(20) {
                            let record = loader.record(&table, row);
                            let question = renderer.question(prompt, &record)?;
                            assert!(question.gold.is_some() && !question.text.is_empty());
                            asked += 1;
                        }
                        Ok(())
                    })
                    .unwrap();
                assert!(asked > 0);
            }
        }
    }
}
