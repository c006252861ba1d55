"""Bad input: one clear error on stderr, whole, with the next command to type; nothing on stdout."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from amlctl.localfs.locks import is_held
from tests.cli.conftest import Answer, Cli
from tests.support.runs import wait_until


def assert_error(answer: Answer, code: int, *lines: str) -> None:
    assert answer.out == ""
    assert answer.err.splitlines() == list(lines)
    assert answer.code == code


def test_outside_a_project(folder: Cli) -> None:
    assert_error(
        folder("status"),
        4,
        f"error: not in a project: no .amlctl.toml in {folder.cwd} or above it",
        "hint: cd to your project, or set one up here: amlctl init",
    )


def test_the_same_as_json(folder: Cli) -> None:
    answer = folder("--json", "status")
    assert answer.code == 4
    assert answer.err == ""
    assert answer.document == {
        "error": {
            "kind": "not_found",
            "message": f"not in a project: no .amlctl.toml in {folder.cwd} or above it",
            "hint": "cd to your project, or set one up here: amlctl init",
            "next": ["amlctl init"],
        }
    }


def test_unknown_command(folder: Cli) -> None:
    assert_error(folder("synk"), 2, "error: No such command 'synk'", "hint: did you mean sync? See all: amlctl --help")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["synk"], "No such command 'synk'"),
        (["sync"], "Missing argument 'PATH...'"),
        (["sync", "--workspace"], "--workspace requires a value"),
        (["logs", "--tail", "x", "@last"], "Invalid value for"),
        (["runs", "shw"], "No such command 'shw'."),
        ([], "Missing command"),
        (["env"], "Missing command"),
    ],
)
def test_usage_errors_as_json(project: Cli, arguments: list[str], message: str) -> None:
    answer = project(*arguments, "--json")
    assert answer.code == 2
    assert answer.document["error"]["kind"] == "usage"
    assert answer.document["error"]["message"].startswith(message)
    assert answer.document["error"]["next"][0].startswith("amlctl")


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("train.py --epochs 3", "put arguments of the script after --: amlctl submit train.py -- --epochs 3"),
        ("train.py lr=3 x=4", "put arguments of the script after --: amlctl submit train.py -- lr=3 x=4"),
        ("train.py -lr 3", "put arguments of the script after --: amlctl submit train.py -- -lr 3"),
        ("train.py 3 4", "put arguments of the script after --: amlctl submit train.py -- 3 4"),
        (
            "train.py --epochs=3 -x --dataset raw/d -- --last",
            "put arguments of the script after --: amlctl submit train.py --dataset raw/d -- --epochs=3 -x --last",
        ),
        (
            "train.py --exprimint e",
            "did you mean --experiment? Otherwise put arguments of the script after --: "
            "amlctl submit train.py -- --exprimint e",
        ),
        ("--epochs 3 train.py", "put arguments of the script after --; see amlctl submit --help"),
        ("train.py --processes x", "amlctl submit --help"),
        ("-x.py --detach", "amlctl submit ./-x.py --detach"),
        ("-- -x.py 3", "amlctl submit ./-x.py -- 3"),
    ],
)
def test_what_belongs_to_the_script_follows_two_dashes(project: Cli, typed: str, hint: str) -> None:
    answer = project("submit", *typed.split())
    assert answer.code == 2
    assert answer.err.splitlines()[-1] == f"hint: {hint}"


def test_unknown_script(project: Cli) -> None:
    project.write("pipeline/model_train.py", "print(1)")
    answer = project("submit", "model_trian.py", "--env-from", "current")
    assert answer.code == 4
    assert "model_trian.py" in answer.err
    assert "pipeline/model_train.py" in answer.err


def test_ambiguous_script(project: Cli) -> None:
    project.write("pipeline/a/train.py", "print(1)")
    project.write("pipeline/b/train.py", "print(1)")
    answer = project("submit", "train.py", "--env-from", "current")
    assert answer.code == 2
    assert "pipeline/a/train.py" in answer.err
    assert "pipeline/b/train.py" in answer.err


def test_a_config_that_is_not_json(project: Cli) -> None:
    project.write("pipeline/train.py", "print(1)")
    project.write("pipeline/configs/base.json", '{"epochs": 3,\n "rate": }\n')
    answer = project("submit", "train.py", "--config", "base.json", "--env-from", "current")
    assert answer.code == 3
    assert "pipeline/configs/base.json" in answer.err
    assert "2" in answer.err


def test_unknown_dataset(project: Cli) -> None:
    project.write("pipeline/train.py", "print(1)")
    answer = project("submit", "train.py", "--dataset", "working/nowhere", "--env-from", "current")
    assert answer.code == 4
    assert "working/nowhere" in answer.err


def test_a_dataset_outside_of_data_blobs(project: Cli) -> None:
    project.write("elsewhere/file")
    assert_error(
        project("sync", "elsewhere"),
        2,
        f"error: 'elsewhere' is not a dataset: datasets are files and folders under {project.cwd}/data_blobs",
        "hint: for example: amlctl sync data_blobs/working",
    )


@pytest.mark.parametrize("command", [("runs", "show"), ("logs",), ("fetch",), ("cancel",), ("runs", "delete")])
def test_unknown_run(project: Cli, command: tuple[str, ...]) -> None:
    assert_error(project(*command, "nothing"), 4, "error: Run 'nothing' not found", "hint: amlctl runs")


def test_no_run_yet(project: Cli) -> None:
    assert_error(
        project("logs", "@last"),
        4,
        "error: no run was submitted from this project folder",
        "hint: run a script: amlctl submit SCRIPT; runs of others: amlctl runs",
    )


def test_a_key_of_the_settings_that_is_unknown(project: Cli) -> None:
    project.write(".amlctl.toml", '[sync]\nlayuot = "auto"\n')
    answer = project("status")
    assert answer.code == 3
    assert ".amlctl.toml:2" in answer.err
    assert "layuot" in answer.err
    assert "layout" in answer.err


@pytest.mark.parametrize("command", ["status", "init"])
def test_in_a_folder_that_was_removed(folder: Cli, command: str) -> None:
    gone = folder.cwd / "gone"
    gone.mkdir()
    shell = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
    done = subprocess.run(
        ["sh", "-c", shell, "sh", str(gone), *folder.command(command)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 4
    assert done.stderr == "error: the current folder no longer exists\nhint: cd to one that does\n"


@pytest.mark.parametrize("command", [("status",), ("runs",), ("submit", "a.py")])
def test_settings_that_are_a_folder(folder: Cli, command: tuple[str, ...]) -> None:
    (folder.cwd / ".amlctl.toml").mkdir()
    answer = folder(*command)
    assert_error(
        answer,
        3,
        f"error: {folder.cwd / '.amlctl.toml'} is a folder",
        "hint: move it away, then: amlctl init",
    )
    assert [check["ok"] for check in folder("doctor", "--json").document["checks"] if check["name"] == "project"] == [
        False
    ]


def test_settings_that_are_not_toml(project: Cli) -> None:
    project.write(".amlctl.toml", 'experiment = "a"\nbroken =\n')
    answer = project("status")
    assert answer.code == 3
    assert ".amlctl.toml:2" in answer.err


def test_an_environment_file_that_is_not_yaml(project: Cli) -> None:
    project.write("pptdaml.yaml", "dependencies:\n  - python=3.11\n - pip\n")
    answer = project("env", "show")
    assert answer.code == 3
    assert "pptdaml.yaml:3" in answer.err


def test_a_store_that_cannot_be_written(project: Cli) -> None:
    project.write("data_blobs/working/x/file", "1")
    project.write("not-a-folder")
    answer = project("sync", "data_blobs/working/x", "--store", "not-a-folder/store")
    assert answer.code in (3, 6)
    assert "not-a-folder" in answer.err
    assert "Traceback" not in answer.err


def test_a_store_of_a_newer_format(project: Cli) -> None:
    submit = ("submit", "a.py", "--env-from", "current")
    project.write("pipeline/a.py")
    project.write("data_blobs/working/x/file", "1")
    assert project("sync", "data_blobs/working/x").code == project(*submit).code == 0
    project.write(".amlctl/store/format.json", '{"format": 99}')
    project.write("data_blobs/working/y/file", "2")
    for command in (("sync", "data_blobs/working/y"), submit):  # it has the script's code already
        answer = project(*command)
        assert answer.code == 3
        assert "99" in answer.err


def test_a_store_of_an_unknown_kind(project: Cli) -> None:
    hint = "hint: use a folder, or https://ACCOUNT.blob.core.windows.net/CONTAINER/PREFIX"
    for url in ("s3://bucket/x", "https:/account.blob.core.windows.net/x"):
        answer = project("sync", "data_blobs/working", "--store", url)
        assert_error(answer, 3, f"error: store '{url}' is not a supported kind of URL", hint)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ours", "--theirs"], "--ours and --theirs exclude each other"),
        (["--snapshot", "ab"], "--snapshot requires --pull"),
        (["--pull", "--verify"], "--verify and --pull exclude each other"),
        (["--pull", "--delete", "--layout", "mirror"], "--delete, --layout and --pull exclude each other"),
        (["--layout", "zip"], "Invalid --layout 'zip'"),
        (["--bwlimit", "0"], "--bwlimit"),
    ],
)
def test_options_of_sync_that_make_no_sense(project: Cli, arguments: list[str], message: str) -> None:
    answer = project("sync", "data_blobs/working", *arguments)
    assert answer.code == 2
    assert message in answer.err


def test_deleting_a_run_needs_a_yes(project: Cli) -> None:
    project.write("pipeline/train.py", "print(1)")
    run = project.json("submit", "train.py", "--env-from", "current")["run"]
    assert_error(
        project("runs", "delete", "@last"),
        5,
        f"error: run {run} would be deleted: record, logs and stored outputs",
        f"hint: if that is intended: amlctl runs delete {run} --yes",
    )
    assert project("runs", "show", run).code == 0


def test_what_to_type_is_meant_for_the_workspace_that_was_typed(project: Cli) -> None:
    project.write(".amlctl.toml", '[workspaces.other]\ncompute = "local"\n')
    answer = project("--workspace", "other", "fetch", "nowhere")
    assert_error(answer, 4, "error: Run 'nowhere' not found", "hint: amlctl --workspace other runs")
    assert (
        project("--workspace", "other", "--json", "fetch", "nowhere").document["error"]["hint"].endswith("other runs")
    )


def test_a_damaged_record_of_another_workspace_is_taken_from_its_store(project: Cli) -> None:
    stores = "".join(f'[workspaces.{name}]\ncompute = "local"\nstore = "../store-{name}"\n' for name in "ab")
    project.write(".amlctl.toml", f'default_workspace = "a"\n{stores}')
    project.write("pipeline/x.py", "print('done')")
    run = project.json("--workspace", "b", "submit", "x.py", "--env-from", "current")["run"]
    record = project.cwd / ".amlctl/runs" / run / "record.json"
    lock = project.cwd / ".amlctl/local" / run / "supervisor.lock"
    wait_until(lambda: not is_held(lock), what="the end of the supervisor, which alone may write the record until then")
    good = record.read_bytes()
    for command, shown in (("runs", run), ("logs", "done")):
        record.write_bytes(good.replace(b'"Completed"', b'"Complfted"'))
        answer = project(command, *(["@last"] if command == "logs" else []))
        assert answer.code == 0
        assert shown in answer.out
        assert answer.err.count("warning:") == 1
        assert record.read_bytes() == good
    record.write_bytes(b"{")
    shutil.rmtree(project.cwd.parent / "store-b" / "runs")
    answer = project("runs")
    assert answer.code == 0
    assert answer.err.count(f"the record of run {run} is damaged") == 1
