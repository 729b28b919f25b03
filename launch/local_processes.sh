#!/usr/bin/env bash
# Any command of this project as N processes of one job on this machine, each with its own simulated CPU devices:
#   DEVICES=2 bash launch/local_processes.sh 2 python -m neurolm_jax.train --config configs/quickstart.py:language ...
# Ends as soon as one of them does not end well, and says which. Where they were asked to end and have saved (code 75), so
# does this script, once all have.
set -euo pipefail
if [ $# -lt 2 ] || ! [ "$1" -ge 1 ] 2> /dev/null; then
  echo "error: want a number of processes and a command: bash $0 2 python -m neurolm_jax.train ..." >&2
  exit 2
fi
count=$1
shift
port=${PORT:-$(python3 -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')}
export NEUROLM_COORDINATOR=localhost:$port NEUROLM_PROCESSES=$count JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
export PJRT_NPROC=${PJRT_NPROC:-128} # threads: with fewer, devices that wait for each other leave none to work
export XLA_FLAGS="${XLA_FLAGS:-} --xla_force_host_platform_device_count=${DEVICES:-1}"

declare -A number
trap 'kill "${!number[@]}" 2> /dev/null || true' EXIT
for ((i = 0; i < count; i++)); do
  NEUROLM_PROCESS=$i "$@" &
  number[$!]=$i
done
later=0
while [ ${#number[@]} -gt 0 ]; do
  code=0
  wait -n -p ended "${!number[@]}" || code=$?
  if [ "$code" -eq 75 ]; then
    later=75
  elif [ "$code" -ne 0 ]; then
    echo "error: process ${number[$ended]} of $count ended with code $code; the others are stopped" >&2
    exit "$code"
  fi
  unset "number[$ended]"
done
exit "$later"
