#!/usr/bin/env bash
# All tests but those marked slow; arguments go to pytest (bash launch/test.sh -m slow).
set -euo pipefail
REQUIREMENTS=requirements-test.txt
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
python -m pytest --numprocesses=2 --dist=loadfile "$@"
