"""A failed script: the reason once, paths that exist here, one next step; and what can be known before a run."""

from __future__ import annotations

import re
import shutil

import pytest

from tests.cli.conftest import Cli, StartTerminal

CURRENT = ("--env-from", "current")


def test_a_missing_module_says_which_package_to_add(project: Cli) -> None:
    project.write("pipeline/deep/train.py", "def work():\n    import surely_not_there_ever\nwork()\n")
    answer = project("submit", "train.py", *CURRENT)
    assert answer.code == 1
    assert 'File "pipeline/deep/train.py", line 2, in work' in answer.out
    assert ".amlctl" not in answer.out
    errors = answer.err[answer.err.index("error:") :].splitlines()
    reason = "the script ended with exit code 1: ModuleNotFoundError: No module named 'surely_not_there_ever'"
    assert re.fullmatch(rf"error: run \S+ is Failed: {re.escape(reason)}", errors[0])
    assert errors[1:] == ["hint: pip install surely-not-there-ever"]
    assert (answer.out + answer.err).count("ended with exit code 1") == 1
    again = project("logs", "@last")
    assert 'File "pipeline/deep/train.py", line 2, in work' in again.out


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        (
            "data/1.txt",
            "data is not sent with a run; move it to data_blobs/working/data and read it there, then "
            "amlctl submit train.py --dataset data_blobs/working/data",
        ),
        ("data_blobs/raw/x/y/1.txt", "amlctl submit train.py --dataset data_blobs/raw/x"),
        ("near/1.txt", "a script runs in the folder above pipeline/; open it as pipeline_dir() / 'near/1.txt' (file_p"),
        (
            "pipeline/lib/1.txt",
            "pipeline/lib/ is not sent (.gitignore:1: lib/); to send it: echo '!/pipeline/lib/' >> .amlctlignore",
        ),
        ("nowhere/1.txt", "amlctl logs "),
    ],
)
def test_a_file_of_the_project_that_was_not_sent_says_how_to_send_it(project: Cli, path: str, hint: str) -> None:
    project.write(".gitignore", "lib/\n")
    if "nowhere" not in path:
        project.write(path if "near" not in path else f"pipeline/{path}", "1")
    project.write("pipeline/train.py", f"open({path!r})\n")
    answer = project("submit", "train.py", *CURRENT)
    assert answer.err.splitlines()[-1].startswith(f"hint: {hint}"), answer.err


def test_a_dataset_that_only_the_store_has_is_named_with_what_the_run_had(project: Cli) -> None:
    project.write("config.json", "{}")
    for name in ("working/deep/down", "working/other"):
        project.write(f"data_blobs/{name}/1.txt", "1")
        assert project("sync", f"data_blobs/{name}").code == 0
        shutil.rmtree(project.cwd / "data_blobs" / name)
    project.write("pipeline/train.py", "from file_paths import working_dir\nopen(working_dir() / 'deep/down/1.txt')\n")
    answer = project("submit", "train.py", "--config", "config.json", "--dataset", "working/other", *CURRENT)
    command = answer.err.splitlines()[-1].removeprefix("hint: amlctl ").split()
    assert command[:3] == ["submit", "train.py", "--from"]
    assert command[4:] == ["--dataset", "data_blobs/working/other", "--dataset", "data_blobs/working/deep/down"]
    assert project(*command).code == 0


def test_paths_lead_to_the_code_from_another_folder(project: Cli) -> None:
    project.write("pipeline/train.py", "raise ValueError('bad')\n")
    answer = project("submit", "train.py", *CURRENT, cwd=project.cwd / "pipeline")
    assert 'File "train.py", line 1' in answer.out
    raw = project("logs", "@last", "--raw")
    assert re.search(r'File "/.*/container/pipeline/train.py"', raw.out)


def test_the_log_of_another_rank_is_shown_as_far_as_it_says_why(project: Cli) -> None:
    project.write("pipeline/train.py", "import os\nassert os.environ['RANK'] != '1', 'bad rank'\n")
    answer = project("submit", "train.py", "--processes", "2", *CURRENT)
    assert "is Failed: the script of rank 1 ended with exit code 1: AssertionError: bad rank" in answer.err
    assert '  File "pipeline/train.py", line 2, in <module>' in answer.err
    assert "--file std_log_process_1.txt" in answer.err.splitlines()[-1]


def test_imports_that_a_run_will_not_have_are_named_before_it(project: Cli) -> None:
    project.write("pipeline/own/__init__.py")
    project.write("pipeline/own/part.py", "import sklearn_but_not_there\n")
    project.write(
        "pipeline/train.py",
        """
        import json, xxhash
        from own import part
        from .own import part
        from own import made_pb2
        import lib.deep
        import near.common, pipeline.own, in_src
        import hollow.inside
        try:
            import quite_optional
        except ImportError:
            pass
        import missing_here
        """,
    )
    project.write(".gitignore", "lib/\n*_pb2.py\n")
    for path in ("pipeline/own/made_pb2", "pipeline/lib/deep", "near/common", "src/in_src/__init__"):
        project.write(f"{path}.py")
    (project.cwd / "pipeline/hollow").mkdir()
    answer = project("submit", "train.py", *CURRENT, "--dry-run")
    warnings = [line for line in answer.err.splitlines() if line.startswith("warning:")]
    project.write("pipeline/other.py", "import pipeline.nowhere\n")
    other = project("submit", "other.py", *CURRENT, "--dry-run").err
    assert "imports pipeline.nowhere, but modules of pipeline/ are imported without its name\n" in other
    where = "which the environment will not have"
    link, out = "is not sent with a run; to send it: ln -s ../", "is not sent (.gitignore"
    assert warnings == [
        "warning: pipeline/train.py:4 imports .own, which fails in a script: import own without the dots",
        f"warning: pipeline/train.py:5 imports own.made_pb2, but pipeline/own/made_pb2.py {out}:2: *_pb2.py); "
        "to send it: echo '!/pipeline/own/made_pb2.py' >> .amlctlignore",
        f"warning: pipeline/train.py:6 imports lib.deep, but pipeline/lib/ {out}:1: lib/); "
        "to send it: echo '!/pipeline/lib/' >> .amlctlignore",
        f"warning: pipeline/train.py:7 imports near.common, but near {link}near pipeline/near",
        "warning: pipeline/train.py:7 imports pipeline.own, "
        "but modules of pipeline/ are imported without its name: import own",
        f"warning: pipeline/train.py:7 imports in_src, but src/in_src {link}src/in_src pipeline/in_src",
        "warning: pipeline/train.py:8 imports hollow.inside, "
        "but pipeline/hollow is empty; if it is a submodule: git submodule update --init",
        f"warning: pipeline/train.py:13 imports missing_here, {where}: add missing-here to the environment of amlctl",
        f"warning: pipeline/own/part.py:1 imports sklearn_but_not_there, {where}: "
        "add sklearn-but-not-there to the environment of amlctl",
    ]


@pytest.mark.parametrize("columns", [80, 200])
def test_on_a_terminal(project: Cli, terminal: StartTerminal, columns: int) -> None:
    project.write("pipeline/train.py", f"print('File \"/{'x' * 300}\", line 1'); raise ValueError('bad')\n")
    ci = "true" if columns == 200 else ""
    command = project.command("submit", "train.py", *CURRENT)
    screen = terminal(command, project.cwd, columns=columns, variables={"CI": ci})
    assert screen.finish() == 1
    assert screen.text.count("ended with exit code") == 1
    path = "pipeline/train.py"
    link = f"\x1b]8;;{(project.cwd / path).as_uri()}\x1b\\{path}\x1b]8;;\x1b\\"
    assert f'File "{path if ci else link}", line 1' in screen.text
