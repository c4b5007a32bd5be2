//! The rules of `diff` on experts whose merges were scored (docs/guides/look-before-you-merge.md): they may not promise what
//! scores did not show.

use polyloom::diff::{Options, Speaks, measure, open};
use polyloom::plan::reference::Places;

use crate::support;

#[test]
fn rules_say_of_real_experts_what_their_scores_said() {
    let models = support::golden("merging").join("../../models/vision-eight");
    let path = |name: String| models.join(name).display().to_string();
    let base = path("base".into());
    for set in ["experts", "experts-plain"] {
        let mut experts: Vec<String> = std::fs::read_dir(models.join(set))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with('_'))
            .map(|name| path(format!("{set}/{name}")))
            .collect();
        experts.sort();
        assert_eq!(experts.len(), 8);
        let inputs = open(Some(&base), &experts, &Places::default()).unwrap();
        let report = measure(&inputs, &Options::default()).unwrap();
        let rule = |code: &str| report.indicators.iter().find(|i| i.code == code).unwrap();
        // Election of signs, and weights of their own, were worth nothing; adding and masks were.
        let silent = |code| {
            let i = rule(code);
            assert_eq!(
                i.speaks,
                Speaks::Nothing,
                "{set}: {code} {}: {}",
                i.shown,
                i.reading
            );
        };
        silent("sign-conflict");
        silent("norm-ratio");
        silent("closest-pair");
        assert!(!rule("sign-conflict").reading.contains("`ties`"));
        for (code, method) in [("mean-cosine", "`task_arithmetic`"), ("overlap", "`tall`")] {
            let i = rule(code);
            assert_eq!(i.speaks, Speaks::For, "{set}: {code}");
            assert!(i.reading.contains(method), "{}", i.reading);
        }
    }
}
