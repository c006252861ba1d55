"""A store that goes away while its project is in use: what commands say, and what is left of its runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from amlctl.core.store_keys import code_prefix
from amlctl.stores.azure_blob.store import AzureBlobStore
from tests.cli.conftest import Cli
from tests.support.azurite import Azurite
from tests.support.bench import wait_for_supervisors
from tests.support.runs import wait_until

SCRIPT = """
    import os, pathlib, time
    pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"], "model.txt").write_text("the result")
    started, go_on = pathlib.Path(os.environ["TEST_STARTED"]), pathlib.Path(os.environ["TEST_GO_ON"])
    started.touch()
    while not go_on.exists():
        time.sleep(0.02)
    print("done")
"""
SUBMIT = ("submit", "train.py", "--env-from", "current", "--detach")


@pytest.fixture
def here(project: Cli) -> Cli:
    """A project that has synced a dataset."""
    project.write("pipeline/train.py", SCRIPT)
    project.write("data_blobs/working/x/a", "a")
    assert project("sync", "working/x").code == 0
    return project


def _store(here: Cli) -> Path:
    return here.cwd / ".amlctl/store"


def _run_while_it_goes(here: Cli, away: Path, *options: str, leaves: Sequence[str] = ()) -> str:
    """The id of a run whose store was renamed to `away` while its script worked; `leaves` are the folders there now."""
    started, go_on = here.cwd / "started", here.cwd / "go-on"
    variables = {"TEST_STARTED": str(started), "TEST_GO_ON": str(go_on)}
    submitted = here(*SUBMIT, *options, "--json", variables=variables)
    assert submitted.code == 0, submitted
    run = str(submitted.document["run"])
    wait_until(started.exists, what="the start of the script")
    _store(here).rename(away)
    for folder in leaves:
        (_store(here) / folder).mkdir(parents=True)
    go_on.touch()
    return run


def _wait_for_end(here: Cli, run: str) -> None:
    """Until it has failed, and its supervisor has ended: before, a reader leaves the run to that."""
    wait_until(lambda: here("runs", "wait", run).code == 1, what="the end of the run")
    wait_for_supervisors(here.cwd / ".amlctl")


@pytest.mark.parametrize("leaves", [(), ("",)], ids=["removed", "unmounted"])
def test_a_run_outlives_its_store(here: Cli, tmp_path: Path, leaves: Sequence[str]) -> None:
    run = _run_while_it_goes(here, tmp_path / "away", leaves=leaves)
    known = (here.cwd / ".amlctl/stores.json").read_bytes()
    _wait_for_end(here, run)
    shown = here.json("runs", "show", run)
    assert (shown["status"], shown["error"]["kind"], shown["exit_code"]) == ("Failed", "store_gone", 0)
    assert f" mount or restore it; then: amlctl fetch {run}\n" in here("runs", "show", run).out
    outputs = Path(shown["error"]["message"].partition("the outputs of the run are in ")[2])
    assert (outputs / "model.txt").read_text() == "the result"
    for command in (("fetch", run), ("dataset", "list")):
        answer = here(*command)
        assert (answer.code, "is gone" in answer.err) == (6, True), answer
    assert (here.cwd / ".amlctl/stores.json").read_bytes() == known
    assert not _store(here).exists() or not list(_store(here).iterdir())

    shutil.rmtree(_store(here), ignore_errors=True)
    (tmp_path / "away").rename(_store(here))
    listed = here.json("runs")["runs"][0]
    assert (listed["status"], listed["error"], listed["exit_code"]) == ("Completed", None, 0)
    assert json.loads((_store(here) / f"runs/{run}/record.json").read_bytes()) == listed
    assert here("runs", "wait", run).code == 0
    assert here.json("fetch", run)["downloaded_files"] == 1
    assert (here.cwd / f"outputs/{run}/model.txt").read_text() == "the result"
    assert not outputs.exists()
    assert "done\n" in (_store(here) / f"runs/{run}/logs/std_log.txt").read_text()  # beside lines about the store


def test_a_sweep_whose_store_is_gone_ends_and_is_delivered(here: Cli, tmp_path: Path) -> None:
    here.write("base.json", '{"rate": 1}')
    options = ("--config", "base.json", "--set", "rate=1,2", "--sweep", "--parallel", "1")
    run = _run_while_it_goes(here, tmp_path / "away", *options)
    _wait_for_end(here, run)
    assert not _store(here).exists()
    assert here("fetch", run).code == 6
    (tmp_path / "away").rename(_store(here))
    assert here.json("fetch", run)["files"] == 1
    records = [(_store(here) / f"runs/{one}/record.json").read_bytes() for one in (run, f"{run}_0", f"{run}_1")]
    assert [json.loads(record)["status"] for record in records] == ["Failed", "Completed", "Failed"]


def test_what_a_run_has_produced_is_published_when_its_store_is_back(here: Cli, tmp_path: Path) -> None:
    here.write(
        "pipeline/train.py",
        SCRIPT
        + """
    made = pathlib.Path(os.environ["AMLCTL_DATA_BLOBS_DIR"], "working/made")
    made.mkdir(parents=True)
    (made / "b").write_text("b")
    """,
    )
    run = _run_while_it_goes(here, tmp_path / "away", "--produces", "working/made")
    _wait_for_end(here, run)
    (tmp_path / "away").rename(_store(here))
    shown = here.json("runs", "show", run)
    assert (shown["status"], list(shown["published"])) == ("Completed", ["working/made"])
    assert here("sync", "--pull", "working/made").code == 0
    assert (here.cwd / "data_blobs/working/made/b").read_text() == "b"


@pytest.mark.parametrize("how", ["canceled", "failed"])
def test_a_run_that_did_not_complete_stays_so_when_its_store_is_back(here: Cli, tmp_path: Path, how: str) -> None:
    if how == "failed":
        here.write("pipeline/train.py", SCRIPT + "    raise SystemExit(7)\n")
    run = _run_while_it_goes(here, tmp_path / "away")
    if how == "canceled":
        (here.cwd / "go-on").unlink()
        assert here("cancel", run).code == 0
    _wait_for_end(here, run)
    assert here.json("runs", "show", run)["error"]["kind"] == "store_gone"
    (tmp_path / "away").rename(_store(here))
    shown = here.json("runs", "show", run)
    assert (shown["status"], shown["error"]["kind"]) == {
        "canceled": ("Canceled", "canceled"),
        "failed": ("Failed", "script"),
    }[how]


def test_a_place_with_runs_only_is_gone(here: Cli) -> None:
    """Such as an earlier version has left below the mount point of a share."""
    shutil.rmtree(_store(here))
    (_store(here) / "runs/x").mkdir(parents=True)
    (_store(here) / "runs/x/record.json").write_text("{}")
    for command in (("dataset", "list"), ("store", "stats"), ("sync", "--pull", "working/x")):
        answer = here(*command)
        assert (answer.code, "is gone" in answer.err) == (6, True), answer
    assert here("sync", "working/x").code == 5
    verified = here("sync", "--verify", "--yes", "working/x")
    assert (verified.code, "sync" in verified.err) == (6, False), verified


def test_a_completed_run_without_outputs_in_the_store_is_not_fetched(here: Cli) -> None:
    here.write("pipeline/train.py", "print('done')")
    run = here.json("submit", "train.py", "--env-from", "current")["run"]
    (_store(here) / f"runs/{run}/outputs.json").unlink()
    answer = here("fetch", run)
    assert (answer.code, "outputs.json is missing" in answer.err) == (1, True), answer


def test_plain_files_are_adopted_by_a_new_store_with_yes(here: Cli) -> None:
    shutil.rmtree(_store(here))
    plain = here.write("plain/a.txt", "a").parent
    refused = here("sync", "--adopt", "plain")
    again = f"sync --adopt {plain} data_blobs/plain --yes"
    foreseen = here(*again.split(), "--dry-run")
    assert (foreseen.code, foreseen.out) == (0, "plain  would change  1 file, 1 B\n  1 added, 0 unchanged\n"), foreseen
    assert (refused.code, f"to start a new one: amlctl {again}\n" in refused.err) == (5, True), refused
    assert here.json(*again.split())["files"] == 1
    assert [one["dataset"] for one in here.json("dataset", "list")["datasets"]] == ["plain"]


@pytest.mark.parametrize("words", [("list",), ("show", "working/x"), ("remove", "working/x"), ("restore", "working/x")])
def test_a_mistyped_store_is_not_an_empty_one(project: Cli, words: Sequence[str]) -> None:
    answer = project("dataset", *words, "--store", "typo")
    assert (answer.code, "no store at" in answer.err) == (4, True), answer
    assert project("dataset", "list").code == 0


def test_code_that_a_container_has_lost_is_sent_again(project: Cli, azurite: Azurite) -> None:
    url, variables = f"{azurite.url}/{azurite.new_container()}", {"AZURE_STORAGE_KEY": azurite.key}
    project.write(".amlctl.toml", f'[workspaces.local]\ncompute = "local"\nstore = "{url}"\n')
    project.write("pipeline/a.py", "print(1)")

    def submit() -> tuple[int, str]:
        answer = project("submit", "a.py", "--env-from", "current", "--json", variables=variables)
        return answer.code, str(answer.document["run"])

    code, run = submit()
    shown = project("runs", "show", run, "--json", variables=variables)
    script = f"{code_prefix(shown.document['code'])}pipeline/a.py"
    store = AzureBlobStore(f"{url}/amlctl", variables)
    store.delete(script)
    verified = project("store", "verify", variables=variables)
    assert (code, "amlctl submit SCRIPT, with the same code" in verified.out) == (0, True)
    assert submit()[0] == 0
    store.delete(script)
    assert project("submit", "--from", run, "--env-from", "current", variables=variables).code == 1  # sends nothing
    assert submit()[0] == 0
    store.close()
