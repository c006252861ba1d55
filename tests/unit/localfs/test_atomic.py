"""Temporary files: those of killed writers go, those of living ones stay."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from amlctl.localfs.atomic import (
    TEMPORARY_PREFIX,
    remove_left_behind,
    scratch_folder,
    temporary_name,
    temporary_near,
    write_bytes,
    writer_of,
)
from amlctl.localfs.folders import STATE_FOLDER
from amlctl.localfs.machine import ProcessIdentity, this_process
from tests.support.another_disk import another_disk

_MAKE = (
    "import sys\nfrom pathlib import Path\nfrom amlctl.localfs.atomic import temporary_beside\n"
    "path = temporary_beside(Path(sys.argv[1]) / 'target')\npath.write_bytes(b'half')\nprint(path.name, flush=True)\n"
    "sys.stdin.read()\n"
)


def test_it_stays_while_its_writer_is_alive_and_goes_once_it_was_killed(tmp_path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", _MAKE, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    name = writer.stdout.readline().strip()
    os.utime(tmp_path / name, (0, 0))  # age says nothing about a writer that is alive
    assert remove_left_behind(tmp_path, older_than_s=0) == 0
    writer.kill()
    writer.communicate()
    assert remove_left_behind(tmp_path) == 1
    assert os.listdir(tmp_path) == []


def test_one_of_another_machine_stays_for_a_day(tmp_path: Path) -> None:
    path = tmp_path / f"{TEMPORARY_PREFIX}00000000-1-1-1"
    path.write_bytes(b"half")
    assert remove_left_behind(tmp_path) == 0
    os.utime(path, (0, 0))
    assert remove_left_behind(tmp_path) == 1


def test_a_process_id_that_is_used_again_is_another_process() -> None:
    here = this_process()
    assert not here.is_gone()
    if here.started:
        assert here._replace(started=here.started + 1).is_gone()
    assert not here._replace(machine="00000000", process=1 << 30).is_gone()


def test_a_forked_child_has_names_of_its_own() -> None:
    mine = writer_of(temporary_name())
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, temporary_name().encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = writer_of(os.read(reading, 200).decode())
    for descriptor in (reading, writing):
        os.close(descriptor)
    assert mine is not None
    assert theirs is not None
    assert (mine.process, theirs.process) == (os.getpid(), child)


@pytest.mark.parametrize("name", ["0123456789abcdef-1", "ab" * 16, "ab" * 16 + ".parts", "00000000-x-1-1"])
def test_names_that_do_not_say_who_writes(name: str) -> None:
    assert writer_of(TEMPORARY_PREFIX + name) is None


_SCRATCH = (
    "import os, sys\nfrom pathlib import Path\nfrom amlctl.localfs.atomic import scratch_folder\n"
    "with scratch_folder(Path(sys.argv[1])) as made:\n    (made / 'half').write_bytes(b'half')\n    os._exit(9)\n"
)


def test_a_folder_of_a_killed_process_goes_with_the_next_one(tmp_path: Path) -> None:
    mine = tmp_path / "amlctl-tmp-of-mine"
    mine.mkdir()
    assert subprocess.run([sys.executable, "-c", _SCRATCH, str(tmp_path)], check=False).returncode == 9
    (left,) = tmp_path.glob(f"{TEMPORARY_PREFIX}*")
    with scratch_folder(tmp_path) as made:
        assert (left.exists(), mine.exists(), made.parent) == (False, True, tmp_path)
    assert os.listdir(tmp_path) == [mine.name]


def test_temporary_files_of_a_projects_state_stand_in_one_folder(tmp_path: Path) -> None:
    state_dir = tmp_path / STATE_FOLDER
    record = state_dir / "runs" / "one" / "record.json"
    assert temporary_near(record).parent == state_dir
    assert temporary_near(tmp_path / "outputs" / "one").parent == tmp_path / "outputs"
    write_bytes(record, b"{}")
    assert record.read_bytes() == b"{}"
    assert os.listdir(state_dir) == ["runs"]


def test_a_folder_of_the_state_may_be_on_another_disk(tmp_path: Path) -> None:
    state_dir = tmp_path / STATE_FOLDER
    state_dir.mkdir()
    with another_disk(tmp_path) as elsewhere:
        (state_dir / "runs").symlink_to(elsewhere)
        write_bytes(state_dir / "runs" / "record.json", b"{}")
        assert os.listdir(elsewhere) == ["record.json"]
    assert os.listdir(state_dir) == ["runs"]


def test_absurd_numbers_are_of_a_process_that_is_gone() -> None:
    assert ProcessIdentity(this_process().machine, 9_999_999_999, 1).is_gone()
