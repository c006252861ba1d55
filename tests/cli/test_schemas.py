"""What `--json` prints satisfies the schemas of `docs/schemas/`; `Cli.json` checks every document of these tests."""

from __future__ import annotations

import jsonschema
import pytest

from tests.cli.conftest import Cli
from tests.support.schemas import SCHEMAS, check_document, document_of

SCRIPT = """
import json, os, pathlib
out = pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"])
(out / "metrics.json").write_text(json.dumps({"score": 1, "notes": ["a", 2]}))
(out / "metrics.jsonl").write_text(json.dumps({"loss": 2, "gain": 1}) + "\\n" + json.dumps({"loss": float("nan")}))
"""

COMMANDS = """
--version
init
skill
config show
doctor
compute list
compute show local
compute create local
sync --dry-run working/x
sync working/x
sync --pull working/x
sync working/x working/y
status working/x
why data_blobs/working/x/a.txt
runs
submit train.py --env-from current --config base.json --set rate=1,2 --sweep --dry-run
submit train.py --env-from current --config base.json --set rate=1,2 --sweep
runs show
submit train.py --env-from current --dataset working/x --dry-run
submit train.py --env-from current --dataset working/x
runs list --sort loss
runs show
runs compare @2 @last --patch
runs plot --metric loss
runs plot @2 @last --metric loss --metric gain
runs report
runs open @last
runs share @last
runs wait @last
runs cancel @last
cancel @last
logs
logs -f
fetch
runs delete @last --yes
dataset list
dataset show working/x
dataset remove working/y --yes
dataset restore working/y
env show --env-from current
env list
env remove --unused 30d
store stats
store gc
store verify
clean
clean --logs --dry-run
"""
"""One of each kind, in an order in which they succeed."""

ELSEWHERE = {"error", "probe", "compute-state"}
"""Below, and in a workspace of Azure ML."""


def test_schemas_are_valid() -> None:
    for schema in SCHEMAS.values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_command_prints_its_document(project: Cli) -> None:
    project.write("data_blobs/working/x/a.txt", "1")
    project.write("data_blobs/working/y/a.txt", "1")
    project.write("pipeline/train.py", SCRIPT)
    project.write("pipeline/base.json", '{"rate": 0}')
    lines = COMMANDS.split("\n")[1:-1]
    for line in lines:
        project.json(*line.split())
    checked = {document_of(line.split()) for line in lines}
    assert checked == set(SCHEMAS) - ELSEWHERE


def test_a_command_of_which_a_part_fails(project: Cli) -> None:
    project.write("data_blobs/working/x/a.txt", "1")
    project.write("pipeline/fails.py", "raise SystemExit(3)")
    partly = project("sync", "working/x", "working/missing", "--json")
    assert partly.code == 4
    assert set(partly.document) == {"datasets", "errors", "not_tried"}
    check_document("sync", partly.document)
    failed = project("submit", "fails.py", "--env-from", "current", "--json")
    assert failed.code == 1
    check_document("submit", failed.document)


def test_errors(project: Cli, folder: Cli) -> None:
    for answer in (project("logs", "missing", "--json"), folder("status", "--json"), project("synk", "--json")):
        assert answer.code in (2, 4)
        check_document("error", answer.document)


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("error", {"error": {"kind": "unheard", "message": "", "hint": "", "next": []}}),
        ("error", {"error": {"kind": "usage", "message": "", "hint": "", "next": [], "more": 1}}),
        ("runs", {"runs": [{"run": "a"}]}),
        ("cancel", {"run": "a", "status": "Sleeping", "was_ended": False}),
    ],
)
def test_a_wrong_document_is_found(name: str, document: object) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check_document(name, document)
