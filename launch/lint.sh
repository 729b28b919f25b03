#!/usr/bin/env bash
# Style, format and types of the public interface, without a change: ruff and mypy as pyproject.toml sets them.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
.venv/bin/pip install --quiet --disable-pip-version-check "$(grep ^mypy== requirements-extras.txt)"
ruff check .
ruff format --check .
mypy
