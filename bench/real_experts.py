#!/usr/bin/env python3
"""Merges the real experts of ../shared/models by Polyloom and scores them with the functions of the independent judge
(../shared/bench/judge.py). Free numbers are chosen on validation rows, everything printed is test rows.

    python3 bench/real_experts.py ../shared out target/release/polyloom [section ...] > docs/results/real-experts.md

Sections: chosen hard curves consensus lines text flora. Needs torch, transformers, safetensors, pyarrow, numpy.
"""
import functools
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
shared, out, polyloom = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]), sys.argv[3]
wanted = sys.argv[4:] or ["chosen", "hard", "curves", "consensus", "lines", "text", "flora"]
spec = importlib.util.spec_from_file_location("judge", shared / "bench" / "judge.py")
judge = importlib.util.module_from_spec(spec)
spec.loader.exec_module(judge)

import numpy as np
import safetensors.numpy as st
import transformers

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
vision = shared / "models" / "vision-eight"
text = shared / "models" / "text-adapters"
minilm = shared / "models" / "all-MiniLM-L6-v2"
TASKS = sorted(p.name for p in (vision / "experts").iterdir() if not p.name.startswith("_"))
OWN = json.loads((vision / "accuracies.json").read_text())["expert"]
say = functools.partial(print, flush=True)


def run(*words):
    done = subprocess.run([polyloom, *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))}\n{done.stderr}")
    return done


def merge(experts, method, flags, target, base=vision / "base"):
    base = [] if method == "linear" else ["--base", base]
    run("merge", *base, *experts, "--method", method, *flags, "-o", target, "--force", "-q", "--no-sync", "--out-dtype", "f32")


def score(folder, split, tasks=TASKS):
    """Accuracy per task of one trunk, or of one folder per task."""
    one = None if "{task}" in str(folder) else judge.load_vision(str(folder))
    found = {}
    for task in tasks:
        model = one or judge.load_vision(str(folder).replace("{task}", task))
        labels, predictions = judge.score_task("vision", model, None, str(vision / "heads"), str(shared / "data"), task, split)
        found[task] = float((labels == predictions).float().mean())
    return found


def mean(values):
    values = list(values.values()) if isinstance(values, dict) else list(values)
    return sum(values) / len(values)


def norm(per):
    return mean(per[t] / OWN[t] for t in per)


def choose(name, method, grid, experts, extra=()):
    """The setting with the best mean validation accuracy (the first of equals), and its test accuracies."""
    best = None
    for flags in grid:
        folder = out / "work"
        merge(experts, method, [*extra, *flags], folder)
        value = mean(score(folder, "validation"))
        if best is None or value > best[0]:
            best = (value, flags)
    merge(experts, method, [*extra, *best[1]], out / "work")
    per = score(out / "work", "test")
    words = " ".join(w for w in best[1] if not w.startswith("--"))
    say(f"| {name} | {words} ({best[0]:.3f}) | {mean(per):.4f} | {norm(per):.4f} | {min(per[t] - OWN[t] for t in per):+.3f} |")
    return per


def masked(name, method, experts, extra=()):
    """One restored model per task from one bundle."""
    bundle = out / "bundle"
    base = ["--base", vision / "base"]
    run("compress", *base, *experts, "--method", method, *extra, "-o", bundle, "--force", "--no-sync", "-q")
    size = sum(f.stat().st_size for f in bundle.rglob("*.safetensors"))
    for e in experts:
        run("compress", "restore", bundle, "--task", e.name, "-o", out / "restored" / e.name, "--force", "--no-sync", "-q")
    per = score(out / "restored" / "{task}", "test")
    say(f"| {name} | task known, {size / 1e6:.1f} MB | {mean(per):.4f} | {norm(per):.4f} | {min(per[t] - OWN[t] for t in per):+.3f} |")


def lambdas(values, word="--shared"):
    return [(word, f"lambda={v}") for v in values]


def table(title, experts, tenths, wide):
    say(f"\n## {title}\n")
    say("| method | chosen on validation (its accuracy) | mean | of the experts | worst task against its expert |\n|---|---|---|---|---|")
    for name, folder in [("base", vision / "base"), ("own expert of each task", experts[0].parent / "{task}")]:
        per = score(folder, "test")
        say(f"| {name} | | {mean(per):.4f} | {norm(per):.4f} | {min(per[t] - OWN[t] for t in per):+.3f} |")
    choose("average", "linear", [()], experts)
    choose("task arithmetic", "task_arithmetic", lambdas(tenths), experts)
    choose("ties_reference, mean", "ties_reference", lambdas(wide), experts)
    choose("ties_reference, sum", "ties_reference", lambdas(tenths), experts, ["--shared", "reduce=sum"])
    choose("ties (mergekit's), density 0.2", "ties", lambdas(wide), experts, ["--each", "density=0.2"])
    choose("breadcrumbs (mergekit's), density 0.8", "breadcrumbs", lambdas(tenths), experts, ["--each", "density=0.8"])
    choose("dare_linear, density 0.5, inverse", "dare_linear", lambdas(tenths), experts, ["--each", "density=0.5", "--shared", "rescale=inverse"])
    choose("pcb", "pcb", lambdas(wide), experts)
    choose("consensus on task arithmetic", "consensus", lambdas(tenths), experts)
    choose("LiNeS after task arithmetic, alpha auto", "task_arithmetic", [("--post", f"lines:alpha=auto,beta={b}") for b in (0.2, 0.5, 0.8)], experts)
    choose("iso_c", "iso_c", lambdas([1, 1.5, 2]), experts)
    choose("iso_cts", "iso_cts", lambdas([1, 1.5, 2]), experts)
    choose("tsv_m", "tsv_m", lambdas([1, 1.5, 2]), experts)
    masked("emr bundle", "emr", experts)
    masked("tall bundle", "tall", experts)


say("# Real experts, merged and scored\n")
say("Command: `python3 bench/real_experts.py ../shared out target/release/polyloom`. Scores by the functions of the models' independent judge; 1,965 test images or the first 600 test rows per")
say("text task. The 95 % half-width of a mean of eight is about 0.024 for images, 0.012 for text; on the same rows differences are sharper, yet below 0.01 they mean little.")

if "chosen" in wanted:
    table("Eight vision experts, our own choice of the free number", [vision / "experts" / t for t in TASKS], [0.2, 0.3, 0.4, 0.5, 0.6, 0.8], [0.8, 1, 1.2, 1.6, 2])
if "hard" in wanted:
    table("The hard set: the same base, plain fine-tuning (`experts-plain`)", [vision / "experts-plain" / t for t in TASKS], [0.05, 0.1, 0.15, 0.2, 0.3, 0.4], [0.1, 0.2, 0.4, 0.6, 0.8])

if "curves" in wanted:
    say("\n## One fixed setting while experts are added\n")
    say("Mean over the tasks merged so far of accuracy / own expert's accuracy; experts in the order of their names. Nothing is chosen: the settings are the papers' defaults.\n")
    say("| experts | task_arithmetic, lambda 0.4 | ties_reference, density 0.2, mean, lambda 1 | breadcrumbs_reference, density 0.15, gamma 0.007, lambda 0.3 | base |\n|---|---|---|---|---|")
    base = score(vision / "base", "test")
    for n in range(2, 9):
        tasks = TASKS[:n]
        experts = [vision / "experts" / t for t in tasks]
        row = []
        for method, flags in [("task_arithmetic", ["--shared", "lambda=0.4"]), ("ties_reference", []), ("breadcrumbs_reference", [])]:
            merge(experts, method, flags, out / "work")
            row.append(norm(score(out / "work", "test", tasks)))
        row.append(norm({t: base[t] for t in tasks}))
        say(f"| {n} | " + " | ".join(f"{v:.4f}" for v in row) + " |")

if "consensus" in wanted:
    say("\n## Consensus beside its base methods\n")
    say("Masks with the default threshold 0.4, at least two tasks. Selfish: used by exactly one task; catastrophic: by none. lambda chosen on validation.\n")
    say("| multi-task vector | none use it | one | two or more | without consensus | with consensus |\n|---|---|---|---|---|---|")
    experts = [vision / "experts" / t for t in TASKS]
    for name, on, plain, grid in [
        ("task arithmetic", '{ method = "task_arithmetic" }', "task_arithmetic", [0.3, 0.4, 0.5, 0.6, 0.8]),
        ("TIES (sum)", '{ method = "ties_reference", reduce = "sum", lambda = 1.0 }', "ties_reference", [0.4, 0.6, 0.8, 1.0]),
    ]:
        recipe = out / "on.toml"
        body = f'version = 1\n[base]\npath = "{vision / "base"}"\n' + "".join(f'[[expert]]\npath = "{e}"\n' for e in experts)
        recipe.write_text(body + f'[merge]\nmethod = "tall"\non = {on}\n')
        run("compress", recipe, "-o", out / "bundle", "--force", "--no-sync", "-q")
        counts, total = {}, 0
        masks = [st.load_file(out / "bundle" / "masks" / f"{t}.safetensors") for t in TASKS]
        sizes = {k: v.size for k, v in st.load_file(out / "bundle" / "shared.safetensors").items()}
        shares = np.zeros(9)
        for k, n in sizes.items():
            bits = sum(np.unpackbits(m[k])[:n].astype(int) for m in masks)
            shares += np.bincount(bits, minlength=9)
        shares /= shares.sum()
        results = []
        for use in ("plain", "consensus"):
            best = None
            for value in grid:
                if use == "plain":
                    flags = ["--shared", f"lambda={value}"] + (["--shared", "reduce=sum"] if plain == "ties_reference" else [])
                    merge(experts, plain, flags, out / "work")
                else:
                    recipe.write_text(body + f'[merge]\nmethod = "consensus"\nout_dtype = "f32"\non = {on}\n[merge.shared]\nlambda = {value}\n')
                    run("merge", recipe, "-o", out / "work", "--force", "--no-sync", "-q")
                found = mean(score(out / "work", "validation"))
                if best is None or found > best[0]:
                    best = (found, value, score(out / "work", "test"))
            results.append(f"{mean(best[2]):.4f} (lambda {best[1]})")
        say(f"| {name} | {shares[0]:.1%} | {shares[1]:.1%} | {shares[2:].sum():.1%} | " + " | ".join(results) + " |")

if "lines" in wanted:
    say("\n## LiNeS on a single expert\n")
    say("One expert, `lines` with beta = 1 - alpha: the last block keeps its whole task vector, the first only alpha of it. Test accuracy on the expert's own task, and the mean over the seven others.\n")
    pairs = [("experts", "sign_digits"), ("experts-plain", "sign_digits"), ("experts-plain", "omniglot_greek")]
    say("| alpha | " + " | ".join(f"{t} ({f}): own | others" for f, t in pairs) + " |\n|---|" + "---|" * 2 * len(pairs))
    for alpha in (0, 0.2, 0.4, 0.6, 0.8, 1):
        row = []
        for folder, task in pairs:
            merge([vision / folder / task], "task_arithmetic", ["--post", f"lines:alpha={alpha},beta={round(1 - alpha, 1)}"], out / "work")
            per = score(out / "work", "test")
            row += [f"{per[task]:.3f}", f"{mean(per[t] for t in per if t != task):.3f}"]
        say(f"| {alpha} | " + " | ".join(row) + " |")

TEXT = sorted(p.name for p in (text / "adapters").iterdir())
SIX = ["sst2", "subj", "trec6", "tweet_emotion", "msrp", "sick_entailment"]
REFERENCE = {"cat": 0.8280, "svd": 0.8279, "linear": 0.8225, "ties": 0.8279, "ties_svd": 0.8280, "dare_linear_svd": 0.8274}


def score_text(folder, limit=600):
    model = judge.load_text(str(folder), str(minilm))
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(minilm), local_files_only=True)
    found = {}
    for task in TEXT:
        labels, predictions = judge.score_task("text", model, tokenizer, str(text / "heads"), str(shared / "data"), task, "test", limit)
        found[task] = float((labels == predictions).float().mean())
    return found


def combined(name, members, flags, reference):
    folders = [text / "adapters" / t for t in members]
    run("adapt", "combine", *folders, *flags, "-o", out / "adapter", "--force", "-q")
    per = score_text(out / "adapter")
    short = [f"{per[t]:.3f}" for t in TEXT]
    last = "" if reference is None else f"{reference:.4f} | {mean(per) - reference:+.4f}"
    say(f"| {name} | " + " | ".join(short) + f" | **{mean(per):.4f}** | {last or ' | '} |")


if "text" in wanted:
    say("\n## Eight text adapters combined\n")
    say("`polyloom adapt combine`, weights as the models' reference table chose them on validation rows (`REFERENCE.md`); first 600 test rows of each task.\n")
    say("| combination | " + " | ".join(TEXT) + " | mean | reference | difference |\n|---|" + "---|" * (len(TEXT) + 3))
    eight = ",".join(["0.4"] * 8)
    combined("cat (exact sum), 0.4", TEXT, ["--combination", "cat", "--weights", eight], REFERENCE["cat"])
    combined("svd rank 16, 0.4", TEXT, ["--combination", "svd", "--rank", "16", "--weights", eight], REFERENCE["svd"])
    combined("linear, six of rank 8, 0.17", SIX, ["--combination", "linear", "--weights", ",".join(["0.17"] * 6)], REFERENCE["linear"])
    combined("ties density 0.5, six of rank 8, 1", SIX, ["--combination", "ties", "--density", "0.5", "--weights", ",".join(["1"] * 6)], REFERENCE["ties"])
    combined("ties_svd density 0.2 rank 16, 1", TEXT, ["--combination", "ties_svd", "--density", "0.2", "--rank", "16", "--weights", ",".join(["1"] * 8)], REFERENCE["ties_svd"])
    combined("dare_linear_svd density 0.5 rank 16, 0.4", TEXT, ["--combination", "dare_linear_svd", "--density", "0.5", "--rank", "16", "--weights", eight], REFERENCE["dare_linear_svd"])


def averaged(folders, target, rank):
    """FedIT's way: A and B averaged on their own, smaller ranks padded with zeros (not what Polyloom does: the baseline)."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    total = {}
    for folder in folders:
        config = json.loads((folder / "adapter_config.json").read_text())
        scale = config["lora_alpha"] / (config["r"] ** 0.5 if config.get("use_rslora") else config["r"])
        for key, value in st.load_file(folder / "adapter_model.safetensors").items():
            value = value.astype(np.float32)
            axis = 0 if "lora_A" in key else 1
            # The scale is split over both factors, so that a lone adapter stays what it is.
            value = value * np.sqrt(scale)
            pad = [(0, 0), (0, 0)]
            pad[axis] = (0, rank - value.shape[axis])
            total[key] = total.get(key, 0) + np.pad(value, pad) / len(folders)
    config = json.loads((folders[0] / "adapter_config.json").read_text()) | {"r": rank, "lora_alpha": rank, "use_rslora": False}
    (target / "adapter_config.json").write_text(json.dumps(config))
    st.save_file({k: v.astype(np.float32) for k, v in total.items()}, target / "adapter_model.safetensors")


def deltas(folder):
    config = json.loads((folder / "adapter_config.json").read_text())
    patterns = config.get("rank_pattern") or {}
    found, tensors = {}, st.load_file(folder / "adapter_model.safetensors")
    for key, a in tensors.items():
        if "lora_A" in key:
            rank = a.shape[0]
            alpha = next((v for k, v in (config.get("alpha_pattern") or {}).items() if k in key), config["lora_alpha"])
            scale = alpha / (rank ** 0.5 if config.get("use_rslora") else rank)
            found[key] = scale * tensors[key.replace("lora_A", "lora_B")].astype(np.float64) @ a.astype(np.float64)
    return found


if "flora" in wanted:
    say("\n## FLoRA's stack against averaging factors\n")
    say("The mean of the adapters' updates (weight 1/n each). `adapt stack` is the exact sum; averaging A and B on their own (FedIT) is not, and for mixed ranks it pads with zeros. Error: Frobenius norm of")
    say("the difference to the exact mean update over its norm, all modules together. Accuracy: mean over the eight text tasks, first 600 test rows.\n")
    say("| members | way | error | mean accuracy |\n|---|---|---|---|")
    for name, members, rank in [("six of rank 8", SIX, 8), ("all eight, ranks 4 to 16", TEXT, 16)]:
        folders = [text / "adapters" / t for t in members]
        exact = {}
        for f in folders:
            for k, v in deltas(f).items():
                exact[k] = exact.get(k, 0) + v / len(folders)
        run("adapt", "stack", *folders, "-o", out / "stacked", "--force", "-q")
        averaged(folders, out / "averaged", rank)
        for way, folder in [("stack", out / "stacked"), ("factors averaged" + ("" if rank == 8 else ", zero padding"), out / "averaged")]:
            got = deltas(folder)
            error = sum(((got[k] - exact[k]) ** 2).sum() for k in exact) ** 0.5 / sum((v**2).sum() for v in exact.values()) ** 0.5
            say(f"| {name} | {way} | {error:.2e} | {mean(score_text(folder)):.4f} |")
