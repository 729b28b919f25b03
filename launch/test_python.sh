#!/usr/bin/env bash
# The tests with another Python than .venv's, in an environment of its own that is kept: bash launch/test_python.sh python3.12
# Further arguments go to pytest.
set -euo pipefail
if [ $# -eq 0 ]; then
  echo "error: want an interpreter: bash $0 python3.12 [pytest's arguments]" >&2
  exit 2
fi
PYTHON=$1 VENV=.venv-$("$1" -c 'import sys; print("{}.{}".format(*sys.version_info))')
export PYTHON VENV
shift
bash "$(dirname "${BASH_SOURCE[0]}")/test.sh" "$@"
