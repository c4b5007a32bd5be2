mod cases;
mod combine;
mod fold;
mod names;
mod others;

use std::collections::BTreeMap;

/// Cases by method prefix that need a forward pass or a method of another module.
fn not_ours(method: &str) -> bool {
    ![
        "lora.",
        "dora.",
        "peft.",
        "diagnostic.",
        "flora.",
        "poly.",
        "smora.fixed",
        "ia3.",
    ]
    .iter()
    .any(|p| method.starts_with(p))
        || method == "lora.mixed_batch"
}

#[test]
fn golden_adapters() {
    let Some(golden) = cases::Golden::open("adapters") else {
        return;
    };
    let mut ran = 0;
    let mut parts: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for case in &golden.cases {
        let done = if not_ours(&case.method) {
            Err("not yet built")
        } else {
            run(case)
        };
        match done {
            Ok(notes) => {
                ran += 1;
                for note in notes {
                    parts.entry(note).or_default().push(case.name.clone());
                }
            }
            Err(why) => parts.entry(why).or_default().push(case.name.clone()),
        }
    }
    let missing = parts.get("not yet built").map_or(0, Vec::len);
    println!("golden adapters: {ran} ran, {missing} not yet built");
    for (what, names) in &parts {
        println!("  {what}: {}", names.join(", "));
    }
    assert_eq!(
        ran + missing,
        golden.cases.len(),
        "a case neither ran nor is missing"
    );
    assert!(ran > 0);
}

type Outcome = Result<Vec<&'static str>, &'static str>;

fn run(case: &cases::Case) -> Outcome {
    match case.method.as_str() {
        "peft.directory" | "peft.directory.transformers" => fold::directory(case),
        "peft.target_modules" => names::targets(case),
        "peft.rank_pattern" => names::patterns(case),
        "lora.init.pissa" | "lora.init.olora" => fold::init(case),
        "peft.add_weighted_adapter" => combine::factors(case),
        "flora.stack" | "flora.zero_padding_baseline" => combine::flora(case),
        m if m.starts_with("lora.extract") => others::extraction(case),
        "diagnostic.intruder_dimensions" => others::intruder(case),
        "poly.poly" | "poly.mhr" | "poly.mttl" => others::poly(case),
        "smora.fixed_mask" => others::smora(case),
        m if m.starts_with("lora.") || m.starts_with("dora.") || m.starts_with("ia3.") => {
            fold::layer(case)
        }
        _ => Err("not yet built"),
    }
}

#[test]
fn golden_merging_adapters() {
    let Some(golden) = cases::Golden::open("merging") else {
        return;
    };
    let mut ran = Vec::new();
    for case in &golden.cases {
        let done = match case.method.as_str() {
            "add_weighted_adapter" => combine::merging(case),
            "extract_lora" => others::extract_model(case),
            _ => continue,
        };
        done.unwrap();
        ran.push(case.name.as_str());
    }
    println!(
        "golden merging, adapters: {} ran: {}",
        ran.len(),
        ran.join(", ")
    );
    assert!(!ran.is_empty());
}
