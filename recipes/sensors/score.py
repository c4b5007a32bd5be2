"""What run.sh found: scores by task and arm, means over seeds, differences of pairs of one seed with 95 % by Student's t."""

import json
import math
import re
import sys
from pathlib import Path

# Student's t, two-sided 95 %, by degrees of freedom.
T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def interval(values):
    """Mean and half the width of its interval; a single value has none."""
    n = len(values)
    mean = sum(values) / n
    if n - 1 not in T:
        return mean, math.nan
    deviation = math.sqrt(sum((x - mean) ** 2 for x in values) / (n - 1))
    return mean, T[n - 1] * deviation / math.sqrt(n)


def main(out):
    found, rows = {}, {}
    for file in sorted(Path(out, "results").glob("*.json")):
        arm, seed = re.match(r"([a-z]+)-(\d+)", file.stem).groups()
        for task, scored in json.loads(file.read_text())["tasks"].items():
            found.setdefault(task, {}).setdefault(arm, {})[int(seed)] = scored["value"]
            rows[task] = scored["n"]
    arms = [a for a in ("single", "nothing", "phases", "frozen", "added") if any(a in f for f in found.values())]
    print("task,n," + ",".join(arms))
    for task, by in found.items():
        means = [f"{interval(list(by[a].values()))[0]:.4f}" if a in by else "" for a in arms]
        print(f"{task},{rows[task]}," + ",".join(means))
    print("\ntask,what,difference,half of the 95 % interval,seeds")
    for one, other in (("nothing", "single"), ("phases", "nothing"), ("frozen", "phases"), ("phases", "single"), ("added", "single"), ("added", "frozen")):
        pairs = []
        for task, by in found.items():
            seeds = sorted(set(by.get(one, ())) & set(by.get(other, ())))
            apart = {s: by[one][s] - by[other][s] for s in seeds}
            pairs.append(apart)
            if apart:
                mean, half = interval(list(apart.values()))
                print(f"{task},{one} less {other},{mean:+.4f},{half:.4f},{len(apart)}")
        seeds = set.intersection(*(set(p) for p in pairs)) if pairs else set()
        if seeds:
            mean, half = interval([sum(p[s] for p in pairs) / len(pairs) for s in sorted(seeds)])
            print(f"mean of {len(pairs)},{one} less {other},{mean:+.4f},{half:.4f},{len(seeds)}")
    print("\nmean square of masked patches, validation rows")
    for folder in (f for a in ("rebuilt", "others", "later") for f in sorted(Path(out).glob(f"{a}-*"))):
        told = Path(folder, "polyloom.json")
        scores = json.loads(told.read_text())["scores"] if told.exists() else None
        for task, scored in ((scores or {}).get("tasks") or {}).items():
            print(f"{folder.name},{task},{scored['value']:.4f},{scored['n']}")


if __name__ == "__main__":
    main(sys.argv[1])
