#!/usr/bin/env bash
# A command again and again until it ends well, finds its input bad (code 2), or this script is told to end. A stage that
# was stopped goes on from its newest checkpoint, also where it alone was told to end (code 75: saved, goes on later).
# Told to end itself, this script hands the signal on and ends with the command's code, 75 where that has saved.
#   RESTARTS=100 PAUSE=5 bash launch/restart.sh python -m neurolm_jax.train ...
set -uo pipefail
if [ $# -eq 0 ]; then
  echo "error: want a command: bash $0 python -m neurolm_jax.train ..." >&2
  exit 2
fi
ended='' child=''
trap 'ended=yes; [ -z "$child" ] || kill -TERM "$child" 2> /dev/null' TERM INT

# Its code; a signal, whenever it comes, ends the command and then this script.
run() {
  "$@" &
  child=$!
  [ -z "$ended" ] || kill -TERM "$child" 2> /dev/null
  wait "$child"
  code=$?
  if [ -n "$ended" ]; then
    wait "$child" # the signal has ended the first wait
    exit $?
  fi
  child=
}

for ((start = 0; ; start++)); do
  run "$@"
  if [ "$code" -eq 0 ] || [ "$code" -eq 2 ]; then
    exit "$code"
  fi
  if [ "$start" -ge "${RESTARTS:-100}" ]; then
    echo "error: ended with code $code, the last of $((start + 1)) times" >&2
    exit "$code"
  fi
  echo "ended with code $code; started again in ${PAUSE:-5} s ($((start + 1)) of ${RESTARTS:-100})" >&2
  run sleep "${PAUSE:-5}"
done
