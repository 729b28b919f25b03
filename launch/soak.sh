#!/usr/bin/env bash
# Kills stages for as long as wanted, sets fields of configs to anything, and writes what became of it into
# docs/reliability.md:
#   bash launch/soak.sh [KILLS] [OVERRIDES]
# Fewer than 20 kills or 20 overrides of each stage say little; 25 kills take about five minutes on two cores.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
JAX_PLATFORMS=cpu python tests/kills.py "$folder/runs" --kills "${1:-100}" --json "$folder/kills.json"
FUZZ_EXAMPLES=${2:-100} FUZZ_REPORT=$folder/fuzzing.jsonl python -m pytest -q tests/test_fuzzing.py
python tests/reliability.py "$folder/kills.json" "$folder/fuzzing.jsonl"
