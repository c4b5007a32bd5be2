#!/usr/bin/env python3
"""Copies a representative subset of the test vectors into tests/golden, so that a clone alone proves itself.

    python3 tests/vendor_golden.py ../shared/golden

Every method keeps at least one case; small cases come first. At most 5 MB: large expected files keep some of their
tensors (the case then says "partial": true).
"""
import json
import pathlib
import shutil
import struct
import sys

source = pathlib.Path(sys.argv[1])
target = pathlib.Path(__file__).parent / "golden"
LIMIT = 4_600_000
shutil.rmtree(target, ignore_errors=True)

# Everything about adapters is small.
shutil.copytree(source / "adapters", target / "adapters")

# Of routing what is built: routers, parts of Twin-Merging, choosing among models, fused logits.
ROUTING = ("mlp_router", "twin", "pilots", "centroid", "predicted_loss", "skills", "win_rate", "logits_fusion")
routing = json.loads((source / "routing" / "manifest.json").read_text())
routing["left_out"] = [c["name"] for c in routing["cases"] if c.get("canonical", {}).get("method") not in ROUTING]
routing["cases"] = [c for c in routing["cases"] if c["name"] not in routing["left_out"]]
routing["about"] = "A subset; tests/vendor_golden.py makes it."
(target / "routing").mkdir(parents=True)
for case in routing["cases"]:
    if case["file"]:
        shutil.copy(source / "routing" / case["file"], target / "routing" / case["file"])
(target / "routing" / "manifest.json").write_text(json.dumps(routing, indent=1) + "\n")
used = sum(f.stat().st_size for f in target.rglob("*") if f.is_file())

manifest = json.loads((source / "merging" / "manifest.json").read_text())
cases = manifest["cases"]


def files_of(case):
    """Expected and extra files, and the model folders a case needs."""
    files = {source / "merging" / case[k] for k in ("expected", "extra_inputs") if isinstance(case.get(k), str)}
    text = json.dumps(case)
    for folder in sorted((source / "merging" / "models").glob("*/*")):
        name = f"{folder.parent.name}/{folder.name}"
        own = case.get("set") == folder.parent.name and (folder.name == "base" or folder.name in case.get("inputs", []))
        if name in text or own:
            files |= {f for f in folder.iterdir() if f.is_file()}
    return files


KEEP = 40_000


def trimmed(path):
    """The bytes of a safetensors file cut to about KEEP bytes of tensors, and whether anything was cut."""
    raw = path.read_bytes()
    if path.suffix != ".safetensors" or "expected" not in path.parts or len(raw) <= KEEP or ".inputs." in path.name or path.name.startswith(("lora_", "extract_")):
        return raw, False
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    names = sorted(n for n in header if n != "__metadata__")
    # From both ends in turn, so that the embedding, an early and a late layer and the head are among them.
    order = [n for pair in zip(names, reversed(names)) for n in pair]
    out, data = {}, b""
    for name in dict.fromkeys(order):
        begin, end = header[name]["data_offsets"]
        if len(data) + end - begin > KEEP:
            continue
        out[name] = {**header[name], "data_offsets": [len(data), len(data) + end - begin]}
        data += raw[8 + length + begin : 8 + length + end]
    text = json.dumps(out).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data, True


taken, have, methods, partial = [], set(), {}, set()
wanted = sorted(cases, key=lambda c: (c["method"] in ("vocab",), len(json.dumps(c))))
for want in (1, 2, 4):
    for case in wanted:
        count = methods.get(case["method"], 0)
        vocabulary = case["name"].startswith("vocab")
        heavy = any(s in json.dumps(case) for s in ("llama64", "llama32_bf16", "bert32"))
        if case in taken or heavy or (count >= want and not vocabulary):
            continue
        extra = {f for f in files_of(case) if f not in have}
        size = sum(len(trimmed(f)[0]) for f in extra)
        if used + size > LIMIT:
            continue
        used += size
        have |= extra
        taken.append(case)
        methods[case["method"]] = count + 1

for file in sorted(have):
    out = target / file.relative_to(source)
    out.parent.mkdir(parents=True, exist_ok=True)
    content, cut = trimmed(file)
    out.write_bytes(content)
    if cut:
        partial.add(file)
for case in taken:
    if isinstance(case.get("expected"), str) and source / "merging" / case["expected"] in partial:
        case["partial"] = True
manifest["cases"] = [c for c in cases if c in taken]
manifest["about"] = "A subset; tests/vendor_golden.py makes it."
(target / "merging" / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
missing = {c["method"] for c in cases} - set(methods)
print(f"{len(taken)} of {len(cases)} merging cases, {len(methods)} methods, {used / 1e6:.2f} MB; without a case: {sorted(missing)}")
