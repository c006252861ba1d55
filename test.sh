#!/bin/sh
# All tests, in a virtual environment of their own making. Arguments go to pytest.
set -eu
cd "$(dirname "$0")"
extra="[dev]"
. ./setup.sh
# Twice as many as two processors: most tests wait for other processes.
exec .venv/bin/python -m pytest -n "${AMLCTL_TEST_PROCESSES:-4}" "$@"
