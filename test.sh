#!/bin/sh
# All tests, in a virtual environment of their own making. Arguments go to pytest.
set -eu
cd "$(dirname "$0")"
extra="[dev]"
. ./setup.sh
exec .venv/bin/python -m pytest -n "${AMLCTL_TEST_PROCESSES:-2}" "$@"
