use super::*;

fn asked(text: &str) -> IndexMap<String, Asked> {
    toml::from_str(text).unwrap()
}

fn naming(patch: Option<usize>) -> Naming<'static> {
    Naming {
        key: "train.new.stems",
        known: None,
        patch,
    }
}

const SIZES: [(&str, [usize; 3]); 3] = [
    ("pen/a", [28, 28, 1]),
    ("pen/b", [28, 28, 1]),
    ("camera/c", [32, 32, 3]),
];

fn told(text: &str, patch: Option<usize>) -> String {
    let error = naming(patch)
        .assigned(&asked(text), &SIZES.to_vec())
        .unwrap_err();
    error.to_string()
}

#[test]
fn pictures_of_one_size_are_one_sensor() {
    let stems = naming(Some(4))
        .assigned(&asked(""), &SIZES.to_vec())
        .unwrap();
    let names: Vec<&String> = stems.keys().collect();
    assert_eq!(names, ["28x28x1", "32x32x3"]);
    assert_eq!(stems[0].tasks, ["pen/a", "pen/b"]);
    assert_eq!((stems[1].size(), stems[1].patch_size), ([32, 32, 3], 4));
    // A stem of its own for one of two; the other joins what is left for its size.
    let text =
        "[pen]\ntasks = [\"pen/b\"]\npatch_size = 7\n[camera]\nimage_size = 32\nnum_channels = 3\n";
    let error = told(
        &format!("{text}[scan]\nimage_size = 28\nnum_channels = 1\n"),
        Some(4),
    );
    assert!(
        error.contains("task `pen/a`") && error.contains("`pen` and `scan`"),
        "{error}"
    );
    let stems = naming(Some(4))
        .assigned(&asked(text), &SIZES.to_vec())
        .unwrap();
    assert_eq!(stems["pen"].tasks, ["pen/b", "pen/a"]);
    assert_eq!(
        (stems["pen"].patch_size, stems["camera"].patch_size),
        (7, 4)
    );
    assert_eq!(stems["camera"].tasks, ["camera/c"]);
}

#[test]
fn odd_sensors_are_refused() {
    let twice = "[a]\ntasks = [\"pen/a\"]\n[b]\ntasks = [\"pen/a\"]\n";
    assert!(told(twice, Some(4)).contains("two sensors, `a` and `b`"));
    assert!(told("[a]\ntasks = [\"pen/x\"]\n", Some(4)).contains("`pen/x`, which is not learned"));
    let both = "[a]\ntasks = [\"pen/a\", \"camera/c\"]\n";
    assert!(told(both, Some(4)).contains("are 28 x 28 x 1, of `camera/c` 32 x 32 x 3"));
    assert!(told("[a]\n", Some(4)).contains("neither tasks nor the size"));
    let other = "[a]\ntasks = [\"pen/a\"]\nimage_size = 14\n";
    assert!(told(other, Some(4)).contains("reads pictures of 14 x 14 x 1"));
    let idle = "[a]\nimage_size = 8\nnum_channels = 2\n";
    assert!(told(idle, Some(4)).contains("no task has pictures of 8 x 8 x 2"));
    assert!(told("", None).contains("stem `28x28x1` (pictures of 28 x 28 x 1) says no patch_size"));
}

#[test]
fn a_task_or_a_size_chooses_the_stem() {
    let text = "[pen]\ntasks = [\"pen/a\"]\n[scan]\ntasks = [\"pen/b\"]\n";
    let stems = naming(Some(4))
        .assigned(&asked(text), &SIZES.to_vec())
        .unwrap();
    let chosen = |task: Option<&str>, size| stem_for(&stems, task, size);
    assert_eq!(chosen(Some("pen/b"), [28, 28, 1]), Ok(1));
    assert_eq!(chosen(Some("pen/b/target"), [28, 28, 1]), Ok(1));
    assert_eq!(chosen(None, [32, 32, 3]), Ok(2));
    let error = chosen(Some("pen/ab"), [28, 28, 1]).unwrap_err();
    assert!(error.contains("`pen` and `scan`"), "{error}");
    let error = chosen(None, [32, 32, 1]).unwrap_err();
    assert!(
        error.contains("which no stem reads; there are `pen` 28 x 28 x 1"),
        "{error}"
    );
    let error = chosen(Some("pen/a"), [32, 32, 3]).unwrap_err();
    assert!(
        error.contains("its stem `pen` reads 28 x 28 x 1"),
        "{error}"
    );
}

#[test]
fn stems_are_added_to_those_of_a_base() {
    let pen = SIZES[..2].to_vec();
    let known = naming(Some(4)).assigned(&asked(""), &pen).unwrap();
    let base = Naming {
        key: "train.stems",
        known: Some(known),
        patch: None,
    };
    let camera = "[camera]\ntasks = [\"camera/c\"]\npatch_size = 8\n";
    let stems = base.assigned(&asked(camera), &SIZES.to_vec()).unwrap();
    assert_eq!((stems.len(), stems["camera"].patch_size), (2, 8));
    assert_eq!(stems["28x28x1"].tasks, ["pen/a", "pen/b"]);
    let told = |text: &str| {
        let found = base.assigned(&asked(text), &SIZES.to_vec());
        found.unwrap_err().to_string()
    };
    assert!(told("").contains("task `camera/c` has a picture of 32 x 32 x 3, which no stem reads"));
    let again = "[28x28x1]\nimage_size = 28\nnum_channels = 1\npatch_size = 7\n";
    assert!(told(&format!("{again}{camera}")).contains("the base has a stem of this name"));
    let twice = "[other]\ntasks = [\"pen/a\"]\npatch_size = 7\n";
    assert!(told(&format!("{twice}{camera}")).contains("two sensors, `28x28x1` and `other`"));
}
