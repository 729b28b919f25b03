#!/usr/bin/env bash
# The programs behind docs/ahead.md, compiled one after another into a folder; what is there already is kept.
#   bash launch/ahead.sh runs/ahead [tpu|gpu] && python -m neurolm_jax.aot --tables runs/ahead
# Takes an hour or two; needs the compilers (see 'python -m neurolm_jax.aot --help').
set -euo pipefail
folder=${1:?"want a folder: bash $0 runs/ahead"}
machines=${2:-tpu}
mkdir -p "$folder"

compile() { # STAGE SIZE TOPOLOGY [REMAT]
  local stage=$1 size=$2 topology=$3 remat=${4:-} shape=${3#*:}
  local chips=$((${shape//x/*}))
  local file=$folder/$stage-$size-${topology/:/-}${remat:+-$remat}.json rows=(0 8)
  [ ! -f "$file" ] || return 0
  case $stage in
    pretrain) rows=(8 1) ;;
    tokenizer | instruct) rows=(8 2) ;;
  esac
  local split=16
  [ "$machines" = tpu ] || split=8 # of a node
  local options=(--config.mesh.fsdp=$((chips < split ? chips : split)) --config.text_batch_size=$((rows[1] * chips)))
  [ "${rows[0]}" -eq 0 ] || options+=(--config.batch_size=$((rows[0] * chips)))
  [ -z "$remat" ] || options+=(--config.language.remat="$remat")
  [ "$machines" = gpu ] || options+=(--quick)
  python -m neurolm_jax.aot --config "configs/$stage.py:$size" --topology "$topology" --json "$file" "${options[@]}"
}

if [ "$machines" = gpu ]; then
  for topology in h100:1x8 h100:4x8; do
    for size in b l xl; do compile pretrain "$size" "$topology"; done
  done
  exit
fi
for topology in v5e:4x4 v5p:4x4x4 v6e:16x16; do
  compile tokenizer b "$topology" # the same for all sizes
  for stage in language pretrain instruct; do
    for size in b l xl; do compile "$stage" "$size" "$topology"; done
  done
done
compile pretrain xl v5p:8x8x8 none
for topology in v5p:2x2x4 v5p:4x8x8 v5p:8x8x8; do
  for size in b xl; do compile pretrain "$size" "$topology"; done
done
