from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amlctl.cli.render.run_text import result_lines
from amlctl.core.events import LogText, Note, RunCreated, RunStateChanged, Warned
from amlctl.core.run import RunRecord
from amlctl.errors import NotFound, RunFailed, SettingsError, UsageError
from amlctl.operations.logs import FollowOptions, InterruptChoice
from amlctl.operations.submit.submit import plan
from tests.support.bench import Bench, wait_for_state, wait_until_tidied
from tests.support.runs import wait_until
from tests.support.shown_run import SHOW_ALL, log_of, seen


def test_a_two_line_script_runs_and_its_outputs_come_back(bench: Bench) -> None:
    bench.script(SHOW_ALL)
    result = bench.submit("train.py", arguments=("--epochs", "3"))
    document = result.to_json()
    assert document["status"] == "Completed"
    assert document["exit_code"] == 0
    assert document["outputs"] == f"outputs/{result.record.run}"
    assert seen(bench, result.record.run)["arguments"] == ["--epochs", "3"]
    assert "wrote the outputs" in log_of(bench)
    assert result.failure is None
    states = [event.state for event in bench.reported(RunStateChanged)]
    assert states[-1] == "Completed"
    assert len(states) == len(set(states))
    assert isinstance(bench.events[[isinstance(e, RunStateChanged) for e in bench.events].index(True) - 1], RunCreated)


def test_git_is_asked_once_what_it_ignores(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = tmp_path / "asked"
    (tmp_path / "git").write_text(f'#!/bin/sh\necho "$@" >> {asked}\nexit 1\n')
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    bench.script("print(1)")
    plan(bench, bench.request("train.py"))
    assert asked.read_text().count("core.excludesFile") == 1


def test_the_record_describes_the_run_completely(bench: Bench) -> None:
    root = bench.project.root
    bench.script(SHOW_ALL)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "-q", "."], cwd=root, check=True)
    subprocess.run([*git, "add", "pipeline"], cwd=root, check=True)
    subprocess.run([*git, "commit", "-q", "-m", "first"], cwd=root, check=True)
    result = bench.submit(
        "train.py",
        name="A first try",
        experiment="Trials",
        tags={"who": "me"},
        variables={"PLAIN": "p", "MY_TOKEN": "very-secret"},
        command_line=("amlctl", "submit", "train.py", "--env", "MY_TOKEN=very-secret"),
    )
    record = bench.workspace.read(result.record.run)
    assert record.run.startswith("A-first-try-")
    spec = record.spec
    assert (spec.script, spec.experiment, spec.tags) == ("pipeline/train.py", "Trials", {"who": "me"})
    assert record.spec.git is not None
    assert len(record.spec.git["commit"]) == 40
    assert record.spec.git["dirty"] is False
    assert record.command_line[-1] == "MY_TOKEN=***"
    assert next(iter(record.times)) == "NotStarted"
    assert seen(bench, record.run)["variables"] == {"PLAIN": "p", "MY_TOKEN": "very-secret", "FROM_SHELL": None}

    def stored() -> RunRecord:
        return RunRecord.from_json(json.loads(bench.store.get(f"runs/{record.run}/record.json")))

    wait_until(lambda: stored().is_final, "the store's copy of the record")
    assert stored().to_json() == record.to_json()


def test_a_secret_is_nowhere_on_disk(bench: Bench) -> None:
    bench.script("print(1)")
    bench.submit(
        "train.py",
        variables={"MY_TOKEN": "very-secret-value", "FROM_SHELL": None},
        caller_variables={"FROM_SHELL": "shell-secret-value"},
        command_line=("amlctl", "submit", "--env", "MY_TOKEN=very-secret-value"),
    )
    wait_until_tidied(bench)
    for path in bench.project.root.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert b"very-secret-value" not in data, path
            assert b"shell-secret-value" not in data, path


def test_a_variable_is_taken_from_the_shell(bench: Bench) -> None:
    bench.script(SHOW_ALL)
    result = bench.submit("train.py", variables={"FROM_SHELL": None}, caller_variables={"FROM_SHELL": "here"})
    assert seen(bench, result.record.run)["variables"]["FROM_SHELL"] == "here"  # type: ignore[index]
    assert result.record.spec.variables == {"FROM_SHELL": None}
    with pytest.raises(UsageError, match="FROM_SHELL"):
        bench.submit("train.py", variables={"FROM_SHELL": None})


def test_a_failed_script_ends_as_failed_and_keeps_its_outputs(bench: Bench) -> None:
    bench.script(SHOW_ALL + "    sys.exit(7)\n")
    result = bench.submit("train.py")
    assert (result.record.status, result.record.exit_code) == ("Failed", 7)
    assert isinstance(result.failure, RunFailed)
    assert seen(bench, result.record.run)["arguments"] == []


def test_a_dataset_is_synced_and_placed(bench: Bench) -> None:
    bench.write("data_blobs/raw/a b/x.txt", "one")
    bench.write("data_blobs/raw/other.txt", "not asked for")
    bench.script(SHOW_ALL)
    first = bench.submit("train.py", datasets=("data_blobs/raw/a b/",))
    assert seen(bench, first.record.run)["data"] == {"raw/a b/x.txt": "one"}
    bench.write("data_blobs/raw/a b/x.txt", "another")
    second = bench.submit("train.py", datasets=("raw/a b",))
    assert seen(bench, second.record.run)["data"] == {"raw/a b/x.txt": "another"}
    assert first.record.spec.datasets.keys() == second.record.spec.datasets.keys() == {"raw/a b"}
    assert first.record.spec.datasets != second.record.spec.datasets
    unsynced = bench.write("data_blobs/raw/a b/x.txt", "third")
    third = bench.submit("train.py", datasets=("raw/a b",), sync=False)
    assert third.record.spec.datasets == second.record.spec.datasets
    assert unsynced.read_text() == "third"


def test_a_dataset_of_the_store_needs_no_local_folder(bench: Bench) -> None:
    path = bench.write("data_blobs/raw/x.txt", "one")
    bench.script(SHOW_ALL)
    bench.submit("train.py", datasets=("raw",))
    path.unlink()
    path.parent.rmdir()
    again = bench.submit("train.py", datasets=("raw",))
    assert seen(bench, again.record.run)["data"] == {"raw/x.txt": "one"}
    assert any("not on this machine" in note.message for note in bench.reported(Note))


def test_an_unknown_dataset_stops_before_there_is_a_run(bench: Bench) -> None:
    bench.write("data_blobs/working/images/x.txt", "one")
    bench.script(SHOW_ALL)
    with pytest.raises(NotFound) as caught:
        bench.submit("train.py", datasets=("working/image",))
    assert "data_blobs/working/images" in caught.value.hint
    with pytest.raises(NotFound, match="never been synced"):
        bench.submit("train.py", datasets=("working/images",), sync=False)
    assert bench.workspace.list_runs() == []


def test_a_produced_dataset_is_the_next_ones_input(bench: Bench) -> None:
    bench.script(
        """
        # /// script
        # [tool.amlctl]
        # datasets = ["raw"]
        # produces = ["working/made"]
        # compute = "no-such-cluster"
        # ///
        import os, pathlib
        data = pathlib.Path(os.environ["AMLCTL_DATA_BLOBS_DIR"])
        made = data / "working/made"
        made.mkdir(parents=True, exist_ok=True)
        made.joinpath("y.txt").write_text((data / "raw/x.txt").read_text() * 2)
        """,
        "preprocess.py",
    )
    bench.script(SHOW_ALL)
    bench.write("data_blobs/raw/x.txt", "ab")
    made = bench.submit("preprocess.py")
    assert made.record.published.keys() == {"working/made"}
    shown = [line if isinstance(line, str) else "" for line in result_lines(made, bench.project.root, 80)]
    assert "    amlctl sync --pull data_blobs/working/made" in shown
    result = bench.submit("train.py", datasets=("working/made",))
    assert result.record.spec.datasets == {"working/made": made.record.published["working/made"]}
    assert seen(bench, result.record.run)["data"] == {"working/made/y.txt": "abab"}


def test_datasets_on_the_command_line_replace_the_inline_ones(bench: Bench) -> None:
    bench.script("# /// script\n# [tool.amlctl]\n# datasets = ['raw/none']\n# ///\nprint(1)\n")
    bench.write("data_blobs/raw/some/x.txt", "x")
    assert bench.submit("train.py", datasets=("raw/some",)).record.spec.datasets.keys() == {"raw/some"}
    assert bench.submit("train.py", datasets=()).record.spec.datasets == {}
    bench.script("# /// script\n# [tool.amlctl]\n# datasets = ['../x']\n# ///\nprint(1)\n")
    with pytest.raises(UsageError, match=r"^pipeline/train\.py:3: '\.\./x' is not a dataset"):
        bench.submit("train.py")


def test_the_config_arrives_with_its_changes(bench: Bench) -> None:
    bench.script(SHOW_ALL)
    bench.write("pipeline/configs/baseline.json", '{"model": {"width": 8}, "rate": 0.1}')
    result = bench.submit("train.py", config="baseline.json", overrides=("model.width=16", "rate=1e-3"))
    document = seen(bench, result.record.run)
    assert document["config"] == {"model": {"width": 16}, "rate": 0.001}
    assert result.record.spec.config == "pipeline/configs/baseline.json"
    assert str(document["arguments"]).count("baseline.json") == 1


def test_a_yaml_config_arrives_as_it_was_written(bench: Bench) -> None:
    text = "# kept\nrate: 1.0e-05\nwhen: 2026-01-02\n"
    bench.script(
        """
        import os, pathlib, sys
        out = pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"])
        out.joinpath("config.yaml").write_text(pathlib.Path(sys.argv[2]).read_text())
        """
    )
    bench.write("pipeline/c.yaml", text)
    plain = bench.submit("train.py", config="c.yaml")
    assert (bench.project.outputs_dir / plain.record.run / "config.yaml").read_text() == text
    changed = bench.submit("train.py", config="c.yaml", overrides=("rate=2e-5",))
    written = (bench.project.outputs_dir / changed.record.run / "config.yaml").read_text()
    assert written == "# kept\nrate: 2.0e-05\nwhen: 2026-01-02\n"


@pytest.mark.parametrize(
    ("path", "text", "words"),
    [
        ("pipeline/bad.json", '{"a": 1,\n "b": }', ["pipeline/bad.json:2:7: "]),
        ("pipeline/bad.yaml", "a: 1\nb: [", ["pipeline/bad.yaml", "line"]),
    ],
)
def test_a_broken_config_names_the_place(bench: Bench, path: str, text: str, words: list[str]) -> None:
    bench.script(SHOW_ALL)
    bench.write(path, text)
    with pytest.raises(SettingsError) as caught:
        bench.submit("train.py", config=Path(path).name)
    for word in words:
        assert word in caught.value.message


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "copy"},
        {"overrides": ("a=1",)},
        {"timeout_s": 0.0},
        {"timeout_s": 1e13},
        {"processes": 1_000, "instances": 1_000},
        {"variables": {"A=B": "c"}},
        {"datasets": ("pipeline",)},
    ],
)
def test_wrong_use_is_reported_before_anything_is_sent(bench: Bench, wrong: dict[str, Any]) -> None:
    bench.script(SHOW_ALL)
    with pytest.raises(UsageError):
        bench.submit("train.py", **wrong)
    assert list(bench.store.list("")) == []


@pytest.mark.parametrize("name", ["~", "~raw/x", "a~"])
def test_a_dataset_may_begin_with_a_tilde(bench: Bench, name: str) -> None:
    bench.write(f"data_blobs/{name}/file.txt", "text")
    bench.script(SHOW_ALL)
    result = bench.submit("train.py", datasets=(name,), produces=(f"{name}-made",))
    assert bench.workspace.read(result.record.run).spec.datasets.keys() == {name}
    assert seen(bench, result.record.run)["data"] == {f"{name}/file.txt": "text"}


def test_no_run_is_made_whose_record_could_not_be_read(bench: Bench) -> None:
    bench.script(SHOW_ALL)
    with pytest.raises(UsageError, match="cannot be recorded: its tags"):
        bench.submit("train.py", tags={"note": "half of a character: \ud800"})
    assert list(bench.store.list("runs/")) == []


def test_an_unknown_compute_target_is_reported_before_anything_is_sent(bench: Bench) -> None:
    bench.script(SHOW_ALL)
    with pytest.raises(NotFound, match="gpu"):
        bench.submit("train.py", compute="gpu")
    assert list(bench.store.list("")) == []


def test_a_plan_names_the_source_of_each_value(bench: Bench) -> None:
    bench.script('# /// script\n# [tool.amlctl]\n# produces = ["made"]\n# ///\n')
    first = bench.submit("train.py", experiment="Trials").record
    repeated = plan(bench, bench.request("train.py", from_run=first.run, tags={"a": "b"})).to_json()
    sources = repeated["sources"]
    assert repeated["code"] == plan(bench, bench.request("train.py")).to_json()["code"]
    assert (sources["script"], sources["tags"]) == ("pipeline/train.py", "command line")
    assert sources["experiment"] == f"run {first.run}"
    assert plan(bench, bench.request("train.py")).sources["mode"] == "settings"


def test_a_dry_run_sends_and_writes_nothing(bench: Bench) -> None:
    bench.script(SHOW_ALL)
    bench.write("pipeline/c.json", '{"a": 1}')
    bench.write("data_blobs/raw/x.txt", "one")
    request = bench.request("train.py", config="c.json", datasets=("raw",), arguments=("-v",))
    document = plan(bench, request).to_json()
    assert document["datasets"]["raw"]["added"] == 1
    assert document["command"] == ["python", "pipeline/train.py", "--config", "config/c.json", "-v"]
    own = [path.stat().st_size for path in bench.project.pipeline_dir.iterdir()]
    assert (document["code"]["files"], document["code"]["bytes"]) == (len(own), sum(own))
    assert document["environment"]["id"] == "current"
    json.dumps(document)
    assert list(bench.store.list("")) == []
    assert bench.workspace.list_runs() == []
    assert bench.submit("train.py", config="c.json", datasets=("raw",)).record.spec.code == document["code"]["id"]


def test_detached_submits_do_not_wait(bench: Bench) -> None:
    bench.script("import time\nwhile True: time.sleep(0.1)\n")
    result = bench.submit("train.py", is_detached=True)
    assert not result.record.is_final
    assert bench.reported(RunCreated) == [RunCreated(result.record.run)]
    bench.workspace.cancel(result.record.run)
    assert wait_for_state(bench, result.record.run, "Canceled").status == "Canceled"


def test_ctrl_c_before_a_run_is_handed_over_cancels_it(bench: Bench) -> None:
    bench.script(SHOW_ALL)

    def interrupt(event: object) -> None:
        bench.events.append(event)  # type: ignore[arg-type]
        if isinstance(event, RunCreated):
            raise KeyboardInterrupt

    from amlctl.operations.submit.submit import submit

    with pytest.raises(KeyboardInterrupt):
        submit(replace(bench, sink=interrupt), bench.request("train.py"),
            following=FollowOptions(lambda: pytest.fail("nothing is followed yet")),
        )  # fmt: skip
    [created] = bench.reported(RunCreated)
    assert bench.workspace.read(created.run).status == "Canceled"
    assert bench.events[-1] == Note(f"run {created.run} is canceled")


def test_ctrl_c_cancels_and_fetches_what_there_is(bench: Bench) -> None:
    bench.script(
        """
        import os, pathlib, time
        pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"], "early.txt").write_text("early")
        print("working", flush=True)
        while True:
            time.sleep(0.1)
        """
    )
    asked = []

    def interrupt(event: object) -> None:
        bench.events.append(event)  # type: ignore[arg-type]
        if isinstance(event, LogText) and "working" in event.text:
            raise KeyboardInterrupt

    def choose() -> InterruptChoice:
        asked.append(1)
        return InterruptChoice.CANCEL

    from amlctl.operations.submit.submit import submit

    result = submit(replace(bench, sink=interrupt), bench.request("train.py"),
        following=FollowOptions(choose),
    )  # fmt: skip
    assert asked == [1]
    assert result.record.status == "Canceled"
    assert (bench.project.outputs_dir / result.record.run / "early.txt").read_text() == "early"


def test_no_fetch_leaves_the_outputs_in_the_store(bench: Bench) -> None:
    bench.script(SHOW_ALL)
    result = bench.submit("train.py", fetch_outputs=False)
    assert result.record.status == "Completed"
    assert not bench.project.outputs_dir.exists()


def test_a_fetch_that_fails_does_not_hide_the_run(bench: Bench) -> None:
    bench.script(SHOW_ALL)
    bench.write("outputs", "a file stands in the way")
    result = bench.submit("train.py")
    assert result.record.status == "Completed"
    assert result.failure is not None
    assert result.to_json()["fetch_error"]
    assert any("amlctl fetch" in event.message for event in bench.reported(Warned))


def test_a_timeout_ends_the_run(bench: Bench) -> None:
    bench.script("import time\nwhile True: time.sleep(0.1)\n")
    record = bench.submit("train.py", timeout_s=1.0).record
    assert record.status == "Failed"
    assert record.error is not None
    assert record.error["kind"] == "timeout"


def test_a_dataset_may_lie_in_another_one(bench: Bench) -> None:
    bench.write("data_blobs/raw/x.txt", "outer")
    bench.write("data_blobs/raw/inner/y.txt", "inner")
    bench.script(SHOW_ALL)
    result = bench.submit("train.py", datasets=("raw/inner", "raw"))
    assert seen(bench, result.record.run)["data"] == {"raw/inner/y.txt": "inner", "raw/x.txt": "outer"}
    assert result.record.spec.datasets.keys() == {"raw", "raw/inner"}


def test_an_environment_file_that_cannot_be_read_stops_everything(bench: Bench) -> None:
    bench.script(SHOW_ALL)
    bench.write("pptdaml.yaml", "dependencies: [\n")
    with pytest.raises(SettingsError, match=r"pptdaml\.yaml"):
        bench.submit("train.py", environment=None)
    assert list(bench.store.list("")) == []


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("c.yaml", b"\xef\xbb\xbfbase: !include other.yaml\r\nbetas: !!python/tuple [0.9, 0.999]\r\n"),
        ("c.json", b'// why\n{"a": 1.0, "a": NaN,}'),
        ("c.py", b"lr = 1e-3  # \xe4\n"),
    ],
)
def test_a_config_that_is_not_changed_arrives_byte_for_byte(bench: Bench, name: str, data: bytes) -> None:
    bench.script(
        """
        import os, pathlib, sys
        out = pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"])
        out.joinpath("config").write_bytes(pathlib.Path(sys.argv[2]).read_bytes())
        """
    )
    bench.write(f"pipeline/{name}").write_bytes(data)
    first = bench.submit("train.py", config=name).record
    again = bench.submit(from_run=first.run).record
    for record in (first, again):
        assert record.status == "Completed"
        assert (bench.project.outputs_dir / record.run / "config").read_bytes() == data
