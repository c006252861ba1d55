"""Reading needs no writing: commands that only look at things work in a project that cannot be written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from amlctl.core.run_state import RunState
from tests.support.bench import Bench, make_bench, wait_until_tidied
from tests.support.rights import ROOT_READS_ALL, run_without_root_rights

pytestmark = ROOT_READS_ALL

PROGRAM = """
import os, sys
os.chdir(sys.argv[1])
sys.argv = ["amlctl", *sys.argv[2:]]
from amlctl.cli.app import main
sys.exit(main())
"""
EACH = """
import json, os, sys
from amlctl.cli import app
os.chdir(sys.argv[1])
for command in json.loads(sys.argv[2]):
    pid = os.fork()
    if pid == 0:
        sys.argv = ["amlctl", *command]
        sys.exit(app.main())
    if code := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        sys.exit(f"{command} has ended with {code}")
"""
"""Commands that succeed, each in a process of its own."""
READING = [
    ["status"],
    ["status", "data_blobs/working/d"],
    ["why", "data_blobs/working/d/1"],
    ["why", "pipeline/train.py"],
    ["logs", "@last"],
    ["runs"],
    ["runs", "show", "@last"],
    ["sync", "--dry-run", "data_blobs/working/d"],
    ["sync", "--pull", "--dry-run", "data_blobs/working/d"],
    ["submit", "--dry-run", "train.py", "--dataset", "data_blobs/working/d", "--env-from", "current"],
    ["env", "show"],
    ["compute", "list"],
    ["store", "stats"],
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """One with a run and a change since, and nothing in it that may be written."""
    bench = make_bench(tmp_path_factory.mktemp("read-only") / "project")
    bench.write(".amlctl.toml")
    bench.write("data_blobs/working/d/1", "1")
    bench.script(
        "import os; open(os.environ['AMLCTL_OUTPUTS_DIR'] + '/o', 'w').write('x'); print('said by the script')"
    )
    bench.submit("train.py", datasets=("data_blobs/working/d",))
    bench.write("data_blobs/working/d/2", "2")
    _set_modes(bench.project.root, 0o555, 0o444)
    yield bench
    _set_modes(bench.project.root, 0o755, 0o644)


def _set_modes(root: Path, folder_mode: int, file_mode: int) -> None:
    for folder, _, files in os.walk(root):
        for name in files:
            Path(folder, name).chmod(file_mode)
        Path(folder).chmod(folder_mode)


def test_commands_that_only_read(project: Bench, tmp_path: Path) -> None:
    elsewhere = ["fetch", "@last", "--to", str(tmp_path)]
    done = run_without_root_rights(EACH, str(project.project.root), json.dumps([*READING, elsewhere, elsewhere]))
    assert done.returncode == 0, done.stderr
    assert os.listdir(tmp_path) == ["o"]


def test_what_is_read_is_what_is_there(project: Bench) -> None:
    done = run_without_root_rights(PROGRAM, str(project.project.root), "--json", "status")
    (dataset,) = json.loads(done.stdout)["datasets"]
    assert (dataset["new"], dataset["modified"], dataset["deleted"]) == (["2"], [], [])
    assert dataset["remote_moved"] is False  # the last agreement is known


@pytest.mark.parametrize("command", [["sync", "data_blobs/working/d"], ["submit", "train.py", "--env-from", "current"]])
def test_a_command_that_writes_says_what_it_cannot(project: Bench, command: list[str]) -> None:
    done = run_without_root_rights(PROGRAM, str(project.project.root), *command)
    assert done.returncode == 3
    assert f"cannot write {project.project.state_dir}" in done.stderr


def test_a_record_that_may_not_be_read_is_named_and_hides_no_other_run(tmp_path: Path) -> None:
    """As of a run that was submitted with sudo. The store has the record, too, until that cannot be read, either."""
    bench = make_bench(tmp_path / "project")
    bench.write(".amlctl.toml")
    bench.script("print('said')")
    closed, other = (bench.submit("train.py").record.run for _ in range(2))
    wait_until_tidied(bench)
    for file, codes in ((bench.project.state_dir, (0, 0, 0)), (Path(bench.store.url), (0, 3, 3))):
        record = file / f"runs/{closed}/record.json"
        record.chmod(0)
        record.parent.chmod(0o555)
        for command, code in zip((["runs", "-q"], ["logs", closed], ["fetch", closed]), codes, strict=True):
            done = run_without_root_rights(PROGRAM, str(bench.project.root), *command)
            assert done.returncode == code, done.stderr
            assert f"runs/{closed}/record.json" in done.stderr
            assert "permission denied" in done.stderr
            assert command[0] != "runs" or other in done.stdout.split()


def test_a_run_whose_supervisor_died_is_shown_as_failed(tmp_path: Path) -> None:
    bench = make_bench(tmp_path / "project")
    bench.write(".amlctl.toml")
    bench.script("print(1)")
    run = bench.submit("train.py").record.run
    wait_until_tidied(bench)
    for file in bench.project.state_dir.rglob("record.json"):
        document = json.loads(file.read_text())
        file.chmod(0o644)
        file.write_text(json.dumps({**document, "status": RunState.RUNNING}))
    _set_modes(bench.project.root, 0o555, 0o444)
    try:
        done = run_without_root_rights(PROGRAM, str(bench.project.root), "--json", "runs", "show", run)
    finally:
        _set_modes(bench.project.root, 0o755, 0o644)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "Failed"


@pytest.mark.parametrize("home", [None, "a-file", "missing", "closed"])
def test_without_a_usable_home(tmp_path: Path, home: str | None) -> None:
    bench = make_bench(tmp_path / "project")
    bench.write(".amlctl.toml")
    bench.script("print(1)")
    (tmp_path / "a-file").touch()
    (tmp_path / "closed").mkdir(mode=0)
    program = "import os\nfor name in [name for name in os.environ if name.startswith('XDG_')]: del os.environ[name]\n"
    program += "del os.environ['HOME']\n" if home is None else f"os.environ['HOME'] = {str(tmp_path / home)!r}\n"
    commands = [["status"], ["env", "show"], ["submit", "train.py", "--env-from", "current"], ["runs"]]
    done = run_without_root_rights(program + EACH, str(bench.project.root), json.dumps(commands))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_doctor_names_a_store_that_may_not_be_looked_at(tmp_path: Path) -> None:
    root = tmp_path / "project"
    bench = make_bench(root)
    (tmp_path / "closed/store").mkdir(parents=True)
    bench.write(".amlctl.toml", f'[workspaces.local]\ncompute = "local"\nstore = "{tmp_path}/closed/store"\n')
    (tmp_path / "closed").chmod(0)
    done = run_without_root_rights(PROGRAM, str(root), "doctor", "--json")
    (tmp_path / "closed").chmod(0o755)
    found = {check["name"]: check["hint"] for check in json.loads(done.stdout)["checks"] if not check["ok"]}
    assert found == {"store": f"check the owner and the rights of {tmp_path}/closed/store"}
