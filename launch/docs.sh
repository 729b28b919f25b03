#!/usr/bin/env bash
# The documentation into site/, warnings as errors; arguments go to mkdocs (bash launch/docs.sh --site-dir elsewhere).
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
.venv/bin/pip install --quiet --disable-pip-version-check -r docs/requirements.txt
python -m mkdocs build --strict --quiet "$@"
