#!/bin/sh
# The example from an empty machine: a virtual environment for amlctl, then make_raw, preprocess and train as runs.
set -eu
cd "$(dirname "$0")"
. ./setup.sh

example=image/classification/screenshot
if [ ! -d "data_blobs/raw/$example" ]; then
    .venv/bin/amlctl submit make_raw.py
    .venv/bin/amlctl sync --pull "data_blobs/raw/$example"
fi
.venv/bin/amlctl submit preprocess.py
.venv/bin/amlctl submit model_train.py --config baseline.json
