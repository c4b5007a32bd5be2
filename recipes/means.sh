#!/usr/bin/env bash
# Means over the seeds, with the lowest and the highest: reads `polyloom board --format csv` of each seed.
set -euo pipefail
echo "system,mean,lowest,highest,seeds"
awk -F, 'FNR == 1 { table = 1; for (i = 1; i <= NF; i++) at[$i] = i; next }
    NF == 0 { table = 0 } # scores by task follow
    !table { next }
    { s = $at["system"]; m = $at["mean"]; n[s]++; sum[s] += m; if (n[s] == 1 || m < lo[s]) lo[s] = m; if (n[s] == 1 || m > hi[s]) hi[s] = m }
    END { for (s in n) printf "%s,%.4f,%.4f,%.4f,%d\n", s, sum[s] / n[s], lo[s], hi[s], n[s] }' "$@" | sort -t, -k2,2gr
