# Sourced by demo.sh and test.sh: makes .venv with amlctl in it, once. `extra` names an optional dependency set.
python=${PYTHON:-python3}
wanted="pyproject.toml ${extra:-}"
if [ ! -f .venv/made-for ] || [ "$(cat .venv/made-for)" != "$wanted" ] || [ pyproject.toml -nt .venv/made-for ]; then
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "amlctl needs Python 3.11 or newer: set PYTHON")'
    "$python" -m venv .venv
    echo "installing amlctl into .venv" >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".${extra:-}"
    # An editable install has no bytecode; where it cannot be written, each start would compile again.
    .venv/bin/python -m compileall -q amlctl
    echo "$wanted" > .venv/made-for
fi
