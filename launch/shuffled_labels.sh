#!/usr/bin/env bash
# A control: the quickstart's last stage with its training labels dealt at random, for 20 seeds (or as many as given).
# Nothing is left to learn, so the mean balanced accuracy on the test parts should be a half.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
RUN=${RUN:-runs/quickstart}
for ((seed = 1; seed <= ${1:-20}; seed++)); do
  workdir=$RUN/shuffled/$seed
  python -m neurolm_jax.train --config configs/quickstart.py:instruct --workdir "$workdir" \
    --config.data.root="$RUN/data" --config.initial.pretrain="$RUN/pretrain" \
    --config.seed="$seed" --config.shuffle_labels=true
  [ -f "$workdir/evaluation.json" ] || python -m neurolm_jax.evaluate --checkpoint "$workdir" --quick > /dev/null
done
python - "$RUN/shuffled" << 'PYTHON'
import json, pathlib, statistics, sys

runs = [json.loads(file.read_text()) for file in pathlib.Path(sys.argv[1]).glob("*/evaluation.json")]
for task in runs[0]["tasks"]:
    found = [run["tasks"][task]["balanced_accuracy"] for run in runs]
    print(f"{task}: mean {statistics.mean(found):.3f} of {len(found)} seeds, {min(found):.3f} to {max(found):.3f}")
PYTHON
