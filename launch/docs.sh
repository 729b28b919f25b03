#!/usr/bin/env bash
# The documentation into site/, warnings as errors; arguments go to mkdocs (bash launch/docs.sh --site-dir elsewhere).
# To read it, with search: python -m http.server --directory site
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
python -m pip install --quiet --disable-pip-version-check -r docs/requirements.txt
NO_MKDOCS_2_WARNING=1 python -m mkdocs build --strict --quiet "$@"
