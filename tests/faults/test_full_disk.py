"""A disk that runs full under a project: what happened is said at once, names the place, and nothing hangs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.small_disk import on_small_disk

PROJECT = """
    amlctl() { "$PYTHON" -m amlctl "$@"; }
    fill() {  # all but $1 kB
        left=$(df -k . | awk 'NR == 2 {print $4}')
        head -c "$(( (left - $1) * 1024 ))" /dev/zero > filler
    }
    wait_for_the_end() {  # of all supervisors: they hold the runs' locks
        for lock in .amlctl/local/*/supervisor.lock; do flock -w 60 "$lock" true; done
    }
    amlctl init > /dev/null
    printf 'import os; print(open(os.environ["AMLCTL_OUTPUTS_DIR"] + "/x", "w").write("x"))' > pipeline/one.py
"""


def project(folder: Path, size_kb: int, script: str) -> subprocess.CompletedProcess[str]:
    return on_small_disk(folder, size_kb, f"PYTHON={sys.executable}\n{PROJECT}\n{script}")


@pytest.mark.parametrize("left_kb", [20, 60, 100, 150])
def test_a_submit_that_finds_no_room_says_at_once_where(tmp_path: Path, left_kb: int) -> None:
    disk = tmp_path / "disk"
    done = project(
        disk,
        3000,
        f"""
        amlctl --quiet submit one.py --env-from current > /dev/null
        wait_for_the_end  # it removes the run's container, and room comes back
        fill {left_kb}
        code=0; timeout 60 "$PYTHON" -m amlctl submit one.py --env-from current > /dev/null 2> ../errors || code=$?
        echo "$code" >&2; cat ../errors >&2
        wait_for_the_end
        timeout 30 "$PYTHON" -m amlctl runs --json
        """,
    )
    code, _, reported = done.stderr.partition("\n")
    runs = json.loads(done.stdout)["runs"]
    assert code in ("1", "6"), done.stderr
    assert f"{disk}/.amlctl/" in reported
    assert "no space left on the disk" in reported
    assert [run["status"] for run in runs][-1] == "Completed"
    assert {run["status"] for run in runs[:-1]} <= {"Failed"}


def test_outputs_that_find_no_room_end_the_run_and_keep_what_was_saved(tmp_path: Path) -> None:
    done = project(
        tmp_path / "disk",
        3000,
        """
        cat > pipeline/big.py <<'END'
import os, pathlib, time
out = pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"])
out.joinpath("early").write_text("saved")
kept = pathlib.Path(os.environ["STORE"], "runs", os.environ["AMLCTL_RUN_ID"], "outputs/early")
while not kept.exists():
    time.sleep(0.05)
try:
    out.joinpath("big").write_bytes(os.urandom(5_000_000))
except OSError as error:
    print(error)
print("x" * 1_000_000, flush=True)
END
        saves_often='from amlctl.cli.app import main
from amlctl.workspaces.local.starting import DEFAULT_TIMING
object.__setattr__(DEFAULT_TIMING, "save_interval_s", 1.0)
main()'
        code=0; timeout 100 "$PYTHON" -c "$saves_often" submit big.py --env-from current \\
            --env STORE="$PWD/.amlctl/store" --no-fetch > /dev/null 2> ../errors || code=$?
        echo "$code" >&2; cat ../errors >&2
        wait_for_the_end
        timeout 30 "$PYTHON" -m amlctl runs --json
        cat .amlctl/store/runs/big-*/outputs/early
        """,
    )
    code, _, reported = done.stderr.partition("\n")
    document, _, kept = done.stdout.rpartition("}")
    [run] = json.loads(document + "}")["runs"]
    assert code == "1", reported
    assert run["status"] == "Failed"
    assert "no space left on the disk" in run["error"]["message"].lower(), run["error"]
    assert kept.strip() == "saved"


def test_a_disk_without_room_for_one_more_file_is_not_called_full(tmp_path: Path) -> None:
    done = on_small_disk(
        tmp_path / "disk",
        1000,
        """
        mount -o remount,nr_inodes=20 small .  # named, else mount repeats the owner, which this namespace does not know
        number=0; while touch "file$number" 2> /dev/null; do number=$((number + 1)); done
        "$1" -c "$2"
        """,
        sys.executable,
        """
from amlctl.localfs.disk_errors import disk_error
try:
    open("one-more", "w")
except OSError as error:
    found = disk_error(error, "a write")
    print(found.message, found.hint, sep="\\n")
""",
    )
    assert done.stdout.splitlines() == [
        f"a write: no room for one more file (inodes) on the disk mounted at {tmp_path}/disk",
        f"make room (df -i {tmp_path}/disk), then run the same command again",
    ], done.stderr


def test_a_pack_that_finds_no_room_leaves_nothing_and_a_later_sync_needs_nothing_of_it(tmp_path: Path) -> None:
    done = project(
        tmp_path / "disk",
        8000,
        """
        mkdir -p data_blobs/x
        for number in $(seq 100); do head -c 40000 /dev/urandom > "data_blobs/x/$number"; done
        fill 1500
        code=0; timeout 60 "$PYTHON" -m amlctl sync x > /dev/null 2> ../errors || code=$?
        echo "$code" >&2; cat ../errors >&2
        find .amlctl/store -name '.amlctl-tmp-*' >&2
        rm filler data_blobs/x/?? data_blobs/x/100
        timeout 60 "$PYTHON" -m amlctl sync x --json
        """,
    )
    code, _, reported = done.stderr.partition("\n")
    assert code == "6", done.stderr
    assert f"no space left on the disk mounted at {tmp_path}/disk" in reported
    assert ".amlctl-tmp-" not in reported
    assert json.loads(done.stdout)["files"] == 9


def test_a_run_is_canceled_where_there_is_room_for_one_more_file_only(tmp_path: Path) -> None:
    done = project(
        tmp_path / "disk",
        9000,
        """
        echo 'import time; time.sleep(600)' > pipeline/one.py
        amlctl submit one.py --env-from current --detach > /dev/null
        while ! amlctl runs --json | grep -q Running; do sleep 0.1; done
        mount -o "remount,nr_inodes=$(df -i . | awk 'NR == 2 {print $3 + 20}')" small .
        number=0; while touch "file$number" 2> /dev/null; do number=$((number + 1)); done
        rm file0
        amlctl cancel @last
        rm -f file*
        wait_for_the_end
        amlctl runs --json
        """,
    )
    shown, _, document = done.stdout.partition("\n")
    assert done.returncode == 0, done.stderr
    assert "CancelRequested" in shown
    assert [run["status"] for run in json.loads(document)["runs"]] == ["Canceled"]
