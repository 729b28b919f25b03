#!/usr/bin/env bash
# Open sets of EEG through all stages: one model for four tasks, a table against simple baselines, a report.
# DATA=DIR has the sets as published (DIR/eegmat, eegmmidb, mdd, guinea_bissau); without it they are downloaded.
# RUN=runs/open keeps the run, SEED=1 changes the seed, SIZE=b trains the larger model, for a GPU. The same command
# again goes on from where it was.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
RUN=${RUN:-runs/open}
SEED=${SEED:-0}
SIZE=${SIZE:-small}

libraries=$(python -c 'import numpy, os, scipy; print(os.path.dirname(os.__file__), *numpy.__path__, *scipy.__path__, sep="\n")')
mapfile -t libraries <<< "$libraries"

if [ -z "${DATA:-}" ]; then
  DATA=$RUN/raw
  python -m neurolm_jax.download eegmat mdd guinea_bissau --out "$DATA"
  for runs in '*R0[48].edf' '*R12.edf'; do # in which fists are imagined
    python -m neurolm_jax.download eegmmidb --out "$DATA" --only "$runs"
  done
fi
python -m neurolm_jax.prepare task workload "$DATA/eegmat" --out "$RUN/data/workload"
for task in eegmmidb mdd guinea_bissau; do
  python -m neurolm_jax.prepare task "$task" "$DATA/$task" --out "$RUN/data/$task"
done
python -m neurolm_jax.prepare text "${libraries[@]}" --out "$RUN/data/text"

for stage in language tokenizer pretrain instruct; do
  initial=()
  case $stage in
    tokenizer) initial=(--config.initial.language="$RUN/language") ;;
    pretrain) initial=(--config.initial.language="$RUN/language" --config.initial.tokenizer="$RUN/tokenizer") ;;
    instruct) initial=(--config.initial.pretrain="$RUN/pretrain") ;;
  esac
  python -m neurolm_jax.train --config "configs/open.py:$stage,$SIZE" --workdir "$RUN/$stage" \
    --config.data.root="$RUN/data" --config.seed="$SEED" "${initial[@]}"
done

if [ ! -f "$RUN/instruct/evaluation.json" ]; then
  python -m neurolm_jax.evaluate --checkpoint "$RUN/instruct"
fi
python -m neurolm_jax.report "$RUN"
