//! Fuzz targets over their seeds and a fixed set of mutations: what a fuzzer finds in its first seconds, in every test run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use polyloom_core::rng::Stream;

/// Variants of each seed; `POLYLOOM_FUZZ_VARIANTS=100000` makes a fuzzer for those without a nightly compiler of it.
fn variants() -> u64 {
    let given = std::env::var("POLYLOOM_FUZZ_VARIANTS").ok();
    given.map_or(300, |n| n.parse().expect("a whole number"))
}

/// Words at which parsers turn.
const WORDS: &[&[u8]] = &[
    b"null",
    b"-1",
    b"1e999",
    b"18446744073709551615",
    b"[[",
    b"}}",
    b"\"",
    b"\n---\n",
    b": ",
    b"&a *a",
    b"\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x00\x00\x00\x00",
    b"nan",
    b"../",
    b"\xf0\x9f\xa7\xb5",
    b"(?<",
];

/// One variant: up to four small changes, a function of the seed's name and the number alone.
fn mutated(seed: &[u8], other: &[u8], name: &str, number: u64) -> Vec<u8> {
    let stream = Stream::new(number, name, 0);
    let mut bytes = seed.to_vec();
    for step in 0..=stream.bits(0) % 4 {
        let r = |i: u64| stream.bits(1 + step * 8 + i);
        let at = (r(0) % (bytes.len() as u64 + 1)) as usize;
        let end = (at + (r(1) % 16) as usize).min(bytes.len());
        match r(2) % 7 {
            0 if at < bytes.len() => bytes[at] ^= 1 << (r(3) % 8),
            1 if at < bytes.len() => bytes[at] = r(3) as u8,
            2 => drop(bytes.drain(at..end)),
            3 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            4 => {
                let word = WORDS[(r(3) % WORDS.len() as u64) as usize];
                bytes.splice(at..end, word.iter().copied());
            }
            5 => bytes.truncate(at),
            _ => {
                let from = (r(3) % (other.len() as u64 + 1)) as usize;
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes
}

/// A target: its name, which is also its folder under `seeds/`, and its body.
type Target = (&'static str, fn(&[u8]) -> bool);

/// Runs targets over their seeds and mutations of them.
pub fn hold(targets: &[Target]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
    for (name, body) in targets {
        let mut seeds: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder.join(name))
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                let file = path.file_name().unwrap().to_str().unwrap().to_owned();
                (file, std::fs::read(&path).unwrap())
            })
            .collect();
        seeds.sort();
        assert!(!seeds.is_empty(), "{name}");
        let mut accepted = 0;
        for (i, (file, seed)) in seeds.iter().enumerate() {
            assert!(body(seed), "{name}/{file} is a valid seed");
            let other = &seeds[(i + 1) % seeds.len()].1;
            for number in 0..variants() {
                let variant = mutated(seed, other, &format!("{name}/{file}"), number);
                match catch_unwind(AssertUnwindSafe(|| body(&variant))) {
                    Ok(good) => accepted += u64::from(good),
                    Err(_) => panic!(
                        "{name}/{file}, variant {number}: {:?}",
                        String::from_utf8_lossy(&variant)
                    ),
                }
            }
        }
        // Mutations that never reach past the first check would test nothing.
        let all = variants() * seeds.len() as u64;
        assert!(
            accepted > all / 100 && accepted < all,
            "{name}: {accepted} of {all} accepted"
        );
    }
}
