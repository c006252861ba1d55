#!/bin/sh
# All tests, in a virtual environment of their own making. Arguments go to pytest.
set -eu
cd "$(dirname "$0")"
extra="[dev]"
. ./setup.sh
# Many tests wait for the disk: in memory, where it has room and runs programs, they take a fifth less time.
folder=${TMPDIR:-/tmp}
if [ -z "${TMPDIR:-}" ] && [ "$(df -Pk /dev/shm 2> /dev/null | awk 'END { print $4 + 0 }')" -gt 10000000 ]; then
    memory=$(mktemp -d /dev/shm/amlctl-tests-XXXXXX)
    printf '#!/bin/sh\n' > "$memory/program"
    chmod +x "$memory/program"
    if "$memory/program" 2> /dev/null; then folder=$memory; else rm -r "$memory"; fi
fi
unset PYTHONDONTWRITEBYTECODE # else each process compiles all tests again
# Twice as many processes as two processors: most tests wait for other processes.
status=0
TMPDIR=$folder .venv/bin/python -m pytest \
    -n "${AMLCTL_TEST_PROCESSES:-4}" --dist worksteal "$@" || status=$?
case $folder in /dev/shm/amlctl-tests-*) [ $status -ne 0 ] || rm -rf "$folder" ;; esac
exit $status
