"""What `--json` prints satisfies the schemas of `docs/schemas/`, and they describe every field of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from amlctl import errors
from amlctl.core.job import DISTRIBUTIONS
from amlctl.core.run_schema import RULES
from amlctl.core.run_state import RunState
from tests.cli.conftest import Cli

jsonschema = pytest.importorskip("jsonschema")
referencing = pytest.importorskip("referencing")

FOLDER = Path(__file__).parents[2] / "docs/schemas"
SCHEMAS: dict[str, Any] = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*.json")}
SCRIPT = """
import json, os, pathlib
out = pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"], "metrics.json")
out.write_text(json.dumps({"score": 1, "notes": ["a", 2]}))
"""

Check = Callable[[str, Any], None]


@pytest.fixture
def check() -> Check:
    resources = [(name, referencing.Resource.from_contents(schema)) for name, schema in SCHEMAS.items()]
    registry = referencing.Registry().with_resources(resources)

    def valid(name: str, document: Any) -> None:
        jsonschema.Draft202012Validator(SCHEMAS[name], registry=registry).validate(document)

    return valid


def kinds(root: type[errors.AmlctlError]) -> Iterator[str]:
    for one in root.__subclasses__():
        yield one.kind
        yield from kinds(one)


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_schemas_are_valid(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])


def test_they_have_all_words() -> None:
    run, facts = SCHEMAS["run.json"]["properties"], SCHEMAS["error.json"]["properties"]["error"]["properties"]
    assert set(run) == set(RULES)
    assert run["status"]["enum"] == [state.value for state in RunState]
    assert run["distribution"]["enum"] == [None, *DISTRIBUTIONS]
    assert set(facts["kind"]["enum"]) == {*kinds(errors.AmlctlError), "internal"}


def test_datasets(project: Cli, check: Check) -> None:
    project.write("data_blobs/working/x/a.txt", "1")
    project.write("data_blobs/working/y/a.txt", "1")
    status = project.json("status", "working/x")
    check("status.json", status)
    item = SCHEMAS["status.json"]["properties"]["datasets"]["items"]["properties"]
    assert set(status["datasets"][0]) == set(item)
    fields = SCHEMAS["sync.json"]["$defs"]["dataset"]["properties"]
    for arguments in (["--dry-run", "working/x"], ["working/x"], ["--pull", "working/x"]):
        done = project.json("sync", *arguments)
        check("sync.json", done)
        assert set(done) <= set(fields)
    check("sync.json", project.json("sync", "working/x", "working/y"))
    partly = project("sync", "working/x", "working/missing", "--json")
    assert partly.code == 4
    assert set(partly.document) == {"datasets", "errors", "not_tried"}
    check("sync.json", partly.document)


def test_runs(project: Cli, check: Check) -> None:
    project.write("pipeline/train.py", SCRIPT)
    project.write("pipeline/fails.py", "raise SystemExit(3)")
    check("runs.json", project.json("runs"))
    submitted = project.json("submit", "train.py", "--env-from", "current")
    check("submit.json", submitted)
    assert {*submitted, "results"} == set(SCHEMAS["submit.json"]["properties"])  # which a sweep has
    failed = project("submit", "fails.py", "--env-from", "current", "--json")
    assert failed.code == 1
    check("submit.json", failed.document)
    check("runs.json", project.json("runs"))
    for run in ("@last", submitted["run"]):
        shown = project.json("runs", "show", run)
        check("run.json", shown)
        assert set(shown) == set(SCHEMAS["run.json"]["properties"])


def test_errors(project: Cli, folder: Cli, check: Check) -> None:
    for answer in (project("logs", "missing", "--json"), folder("status", "--json"), project("synk", "--json")):
        assert answer.code in (2, 4)
        check("error.json", answer.document)


def test_a_wrong_document_is_found(check: Check) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check("error.json", {"error": {"kind": "unheard", "message": "", "hint": "", "next": []}})
    with pytest.raises(jsonschema.ValidationError):
        check("runs.json", {"runs": [{"run": "a"}]})
