from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from amlctl.config.compute_file import read_compute_files
from amlctl.config.environment_file import read_environment
from amlctl.config.settings import load_settings
from amlctl.core.compute import LocalTarget
from amlctl.core.settings import Settings
from amlctl.errors import RightsError, ServiceUnavailable, UsageError
from amlctl.localfs.project import find_project
from amlctl.operations.init import init

FOLDERS = ["pipeline/", "data_blobs/raw/", "data_blobs/working/", "outputs/", "compute/"]
FILES = [".amlctl.toml", "pipeline/file_paths.py", "pptdaml.yaml", "compute/local.yaml", ".gitignore"]


def test_an_empty_folder_becomes_a_project(tmp_path: Path) -> None:
    result = init(tmp_path / "new" / "project")
    assert result.created == [*FOLDERS, *FILES]
    assert result.kept == []
    assert result.to_json() == {"created": result.created, "kept": []}
    project = find_project(tmp_path / "new" / "project" / "pipeline")
    assert project.root == tmp_path / "new" / "project"


def test_what_init_writes_can_be_used(tmp_path: Path) -> None:
    init(tmp_path)
    project = find_project(tmp_path)
    settings = load_settings(project, {}, user_file=None)
    assert settings.workspace() == Settings().workspace()
    assert settings.sync.pack_size == Settings().sync.pack_size
    assert read_compute_files(project).targets == [LocalTarget("local", 1)]
    spec = read_environment(project.environment_file)
    assert (spec.python, spec.conda, spec.pip) == (">=3.9", (), ())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("requirements.txt", "six==1.16.0\n"),
        ("environment.yml", "name: mine\ndependencies: [python=3.11, {pip: [six==1.16.0]}]\nprefix: /home/me/mine\n"),
    ],
)
def test_the_packages_of_an_existing_project_are_used(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert init(tmp_path).packages_from == name
    assert read_environment(tmp_path / "pptdaml.yaml").pip == ("six==1.16.0",)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "pptdaml.yaml").write_text("name: mine\n")
    (tmp_path / "pipeline").mkdir()
    (tmp_path / ".amlctl.toml").symlink_to("nowhere")
    result = init(tmp_path)
    assert result.kept == ["pipeline/", ".amlctl.toml", "pptdaml.yaml"]
    assert (tmp_path / "pptdaml.yaml").read_text() == "name: mine\n"
    assert not (tmp_path / "nowhere").exists()
    again = init(tmp_path)
    assert (again.created, again.kept) == ([], [*FOLDERS, *FILES])


def test_git_leaves_data_and_outputs_alone(tmp_path: Path) -> None:
    init(tmp_path)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    for name in ("data_blobs/raw/a", "outputs/run/b", "pipeline/c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    reported = subprocess.run(
        ["git", "status", "--short", "-uall"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert {line[3:] for line in reported.stdout.splitlines()} == {*FILES, "pipeline/c"}


def test_a_gitignore_of_old_is_kept_and_what_it_lacks_is_reported(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.pyc\n/outputs/*\n")
    result = init(tmp_path)
    assert (tmp_path / ".gitignore").read_text() == "*.pyc\n/outputs/*\n"
    assert result.unignored == ["/data_blobs/"]
    other = tmp_path.with_name(f"{tmp_path.name}-other")
    assert init(other).unignored == init(other).unignored == []


@pytest.mark.parametrize("name", ["pipeline", "data_blobs"])
def test_a_file_in_the_way(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")
    with pytest.raises(UsageError, match=name):
        init(tmp_path)


def test_a_file_in_the_place_of_the_project(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError) as caught:
        init(tmp_path / "file" / "inside")
    assert caught.value.message.startswith(f"{tmp_path / 'file'} is a file")


def test_a_folder_where_a_file_is_needed(tmp_path: Path) -> None:
    (tmp_path / ".amlctl.toml").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        init(tmp_path)


def test_a_folder_that_cannot_be_made() -> None:
    with pytest.raises((RightsError, UsageError), match="/proc/"):
        init(Path("/proc/amlctl-project") if sys.platform == "linux" else Path("/dev/null/proc/x"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_leaves_no_half_file(tmp_path: Path) -> None:
    # A file-size limit stands in for the full disk: the write fails in the same way, as an OSError.
    code = (
        "import resource, signal, sys, pathlib\n"
        "from amlctl.operations.init import init\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "init(pathlib.Path(sys.argv[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert ServiceUnavailable.__name__ in done.stderr
    assert not (tmp_path / ".amlctl.toml").exists()


def test_file_paths_is_the_example_projects_own(tmp_path: Path) -> None:
    init(tmp_path)
    own = Path(__file__).parents[3] / "pipeline" / "file_paths.py"
    assert (tmp_path / "pipeline" / "file_paths.py").read_bytes() == own.read_bytes()


def test_file_paths_finds_the_project_or_the_runs_folders(tmp_path: Path) -> None:
    init(tmp_path)
    inside = tmp_path / "pipeline" / "a" / "b"
    inside.mkdir(parents=True)
    script = inside / "script.py"
    script.write_text(
        "import file_paths as f\n"
        "print(f.pipeline_dir(), f.data_blobs_dir(), f.raw_dir(), f.working_dir(), f.outputs_dir(), sep='\\n')\n"
    )

    def run(**variables: str) -> list[str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith("AMLCTL_")}
        env |= {"PYTHONPATH": str(tmp_path / "pipeline"), "PYTHONDONTWRITEBYTECODE": "1", **variables}
        return subprocess.run(
            [sys.executable, str(script)], env=env, cwd="/", capture_output=True, text=True, check=True
        ).stdout.splitlines()

    names = ["pipeline", "data_blobs", "data_blobs/raw", "data_blobs/working", "outputs"]
    assert run() == [str(tmp_path / name) for name in names]
    assert run(AMLCTL_PIPELINE_DIR="/p", AMLCTL_DATA_BLOBS_DIR="/d", AMLCTL_OUTPUTS_DIR="/o") == [
        *("/p", "/d", "/d/raw", "/d/working", "/o")
    ]


@pytest.mark.parametrize("below", ["pipeline", "data_blobs/working", "new/deeper"])
def test_a_project_inside_another_one_is_refused(tmp_path: Path, below: str) -> None:
    init(tmp_path)
    with pytest.raises(UsageError, match="lies inside the project") as caught:
        init(tmp_path / below)
    assert str(tmp_path) in caught.value.message
    assert not (tmp_path / below / ".amlctl.toml").exists()
    assert init(tmp_path).created == []
