#!/usr/bin/env bash
# Style, format and types of the public interface, without a change: ruff and mypy as pyproject.toml sets them.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
grep -E '^(mypy|ruff)==' requirements-extras.txt | python -m pip install --quiet --disable-pip-version-check -r /dev/stdin
ruff check .
ruff format --check .
mypy
