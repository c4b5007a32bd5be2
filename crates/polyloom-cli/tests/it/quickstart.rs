//! `polyloom quickstart`: what it refuses. That it runs to the end is a step of `.ci/run`.

use super::{polyloom, text};

#[test]
fn a_folder_that_is_there_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("mine");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("work.txt"), "a year of it").unwrap();
    let folder = folder.display().to_string();
    let said = |args: &[&str]| {
        let out = polyloom(args);
        assert_eq!(out.status.code(), Some(2));
        text(&out.stderr)
    };
    assert!(said(&["quickstart", "-o", &folder]).contains("exists already"));
    let forced = said(&["quickstart", "-o", &folder, "--force"]);
    assert!(
        forced.contains("was not made by quickstart and is not removed"),
        "{forced}"
    );
    assert!(dir.path().join("mine/work.txt").exists());
}
