from __future__ import annotations

from pathlib import Path

from amlctl.core.events import Event, Warned
from amlctl.localfs.ignore import IgnoreRules
from amlctl.runs.code import MANY_BYTES, collect_code, large_code


def test_ordinary_code_is_not_remarkable() -> None:
    assert large_code({f"pipeline/{n}.py": 2000 for n in range(200)}) is None


def test_an_environment_is_named_however_small_it_is() -> None:
    sizes = {f"pipeline/tools/.venv/lib/{n}.py": 1000 for n in range(300)}
    found = large_code({"pipeline/train.py": 10, "pipeline/tools/.venv/pyvenv.cfg": 50, **sizes})
    assert found is not None
    assert "pipeline/tools/.venv/ (a Python environment, 301 files, 300 kB)" in found.message
    assert found.ignore_lines == ("/pipeline/tools/.venv/",)


def test_large_files_are_named_with_what_all_of_it_comes_to() -> None:
    sizes = {"pipeline/train.py": 10, "pipeline/runs/a.bin": MANY_BYTES, "pipeline/runs/b.bin": MANY_BYTES}
    found = large_code(sizes)
    assert found is not None
    assert found.message.startswith("3 files, 42 MB are sent with every run")
    assert "pipeline/runs/ (2 files, 42 MB)" in found.message


def test_many_small_files_are_named_as_deep_as_they_lie() -> None:
    sizes = {f"pipeline/web/node_modules/p{n % 9}/{n}.js": 10 for n in range(1500)}
    found = large_code({"pipeline/web/index.js": 10, "pipeline/train.py": 10, **sizes})
    assert found is not None
    assert "pipeline/web/node_modules/ (1,500 files, 15 kB)" in found.message


def test_a_small_environment_does_not_hide_a_large_file() -> None:
    found = large_code({"pipeline/.venv/pyvenv.cfg": 50, "pipeline/big.bin": 10 * MANY_BYTES})
    assert found is not None
    assert found.ignore_lines == ("/pipeline/.venv/", "/pipeline/big.bin")


def test_large_code_is_warned_of_before_it_is_read(tmp_path: Path) -> None:
    """A link to a folder of data is code, too: reading it may take an hour."""
    (tmp_path / "pipeline/sub").mkdir(parents=True)
    with (tmp_path / "pipeline/sub/data.bin").open("wb") as file:
        file.truncate(MANY_BYTES + 1)
    events: list[Event] = []
    collect_code(tmp_path / "pipeline", IgnoreRules(tmp_path, ()), sink=events.append)
    assert isinstance(events[0], Warned)
    assert "To leave it out: echo '/pipeline/sub/' >> .amlctlignore" in events[0].message
    assert len(events) > len([event for event in events if isinstance(event, Warned)]) == 1
