"""Whatever a file holds, its loader gives a value or an error of ours, within bounds; `--set` changes one value or
says why not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from amlctl.azure_access.azure_ai_ml import check_job
from amlctl.config.compute_file import read_compute_files
from amlctl.config.config_edit import with_overrides
from amlctl.config.environment_file import parse_environment
from amlctl.config.job_file import parse_job_file, read_command_job
from amlctl.config.json_nodes import json_documents
from amlctl.config.nodes import parse_yaml, plain_value, yaml_documents
from amlctl.config.script_config import config_values, read_script_block, record_config
from amlctl.config.settings import load_settings
from amlctl.core.run import RunRecord, config_bytes
from amlctl.errors import AmlctlError, NotFound, SettingsError, UsageError
from amlctl.localfs.project import Project

YAML_SEED = """\
# a comment
name: &n x
lr: 1e-5
day: 2024-01-01
flag: yes
betas: !!python/tuple [0.9, 0.999]
model: &m
  layers:
  - {width: 8, act: 'relu'}
  - width: 16
    <<: *m2
text: |
  some
  text
none: ~
other: *n
dependencies: [python=3.11, {pip: [torch==2.1]}]
"""
JSON_SEED = '{"lr": 1e-5, "name": "x", "on": true, "none": null, "model": {"layers": [{"w": 8}, [1, 2.5]]}} // c'
TOML_SEED = """\
experiment = "x"
default_workspace = "local"
[workspaces.local]
compute = "local"
store = '''a'''
[sync]
pack_below = "1MiB"
ignore = ["*.tmp", "a"]
[submit]
fetch = true
"""
JOB_SEED = """\
$schema: https://azuremlschemas.azureedge.net/latest/commandJob.schema.json
command: python a.py --lr ${{inputs.lr}}
code: .
environment: {image: x, conda_file: {dependencies: [python=3.11]}}
inputs: {lr: 0.1, d: {type: uri_folder, path: ../data_blobs/working}}
outputs: {m: {type: uri_folder}}
resources: {instance_count: 2}
distribution: {type: pytorch, process_count_per_instance: 1}
tags: {a: b}
limits: {timeout: 100}
"""
COMPUTE_SEED = "name: gpu\ntype: amlcompute\nsize: x\nmin_instances: 0\nmax_instances: 2\ntags: {a: b}\n"
SCRIPT_SEED = '# /// script\n# [tool.amlctl]\n# datasets = ["working"]\n# compute = "gpu"\n# ///\n'

PIECES = [
    *["&a ", "*a", "<<: ", "<<: *n", "!x ", "!!int ", "!!float x", "!!timestamp x", "!!bool ", "!!null x", "!!set {a}"],
    *["!!binary =", "!!omap [a]", "2024-13-45", "9" * 400, "0x" + "f" * 400, "1:" * 50, ".inf", ".nan", "1e999", "~"],
    *["[", "]", "{", "}", ",", ":", ": ", "- ", "? ", "|", ">", "#", "'", '"', "\\", "\n", "\r\n", "\t", "  ", "---\n"],
    *[
        "...\n",
        "%TAG ! x\n",
        "\0",
        "\ufeff",
        "\x85",
        "\u2028",
        "\ud800",
        "\\ud800",
        "\U0001f600",
        "é",
        "[" * 150,
        "{a: " * 150,
    ],
    *[
        "null",
        "true",
        "NaN",
        "-Infinity",
        "//",
        "/*",
        "*/",
        "=",
        "[[",
        "]]",
        '"""',
        "'''",
        "[a.b]",
        "${{",
        "}}",
        "@",
        "`",
    ],
]


@st.composite
def mutated(draw: st.DrawFn, seed: str) -> str:
    """The seed with pieces put in, taken out, doubled and moved."""
    text = seed
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 12)))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            text = text[:start] + draw(st.sampled_from(PIECES)) + text[end:]
        elif kind == 1:
            text = text[:start] + text[end:]
        elif kind == 2:
            text = text[:end] + text[start:end] + text[end:]
        else:
            text = text[:start] + draw(st.text(max_size=4)) + text[end:]
    return text


EXAMPLES = settings(max_examples=250)


def ours(action: Callable[[], Any]) -> Any:
    """The action's value, or its error where that is one of ours; any other fails the test."""
    try:
        return action()
    except (UsageError, SettingsError, NotFound) as error:
        error.message.encode("utf-8", "surrogateescape")
        return error


@EXAMPLES
@given(text=mutated(YAML_SEED))
def test_yaml(text: str) -> None:
    found = ours(lambda: parse_yaml(text, "x.yaml"))
    if not isinstance(found, AmlctlError):
        json.dumps(found.value)
    ours(lambda: parse_environment(text, "pptdaml.yaml"))


@EXAMPLES
@given(text=mutated(TOML_SEED))
def test_settings(tmp_path: Path, text: str) -> None:
    (tmp_path / ".amlctl.toml").write_bytes(text.encode("utf-8", "surrogatepass"))
    ours(lambda: load_settings(Project(tmp_path), {}, user_file=None))


def read_job(path: Path) -> None:
    file = parse_job_file(path, "job.yml")
    if check_job(file, path) == "command":
        read_command_job(file, path.parent)


@pytest.mark.filterwarnings("ignore::Warning")  # of the SDK's own imports
@EXAMPLES
@given(job=mutated(JOB_SEED), compute=mutated(COMPUTE_SEED), script=mutated(SCRIPT_SEED))
def test_job_compute_and_script_files(tmp_path: Path, job: str, compute: str, script: str) -> None:
    (tmp_path / "compute").mkdir(exist_ok=True)
    (tmp_path / "job.yml").write_bytes(job.encode("utf-8", "surrogatepass"))
    (tmp_path / "compute/gpu.yaml").write_bytes(compute.encode("utf-8", "surrogatepass"))
    ours(lambda: read_job(tmp_path / "job.yml"))
    files = read_compute_files(Project(tmp_path))
    assert len(files.targets) + len(files.broken) == 1
    ours(lambda: read_script_block(script, "a.py"))


@EXAMPLES
@given(
    text=st.one_of(mutated(YAML_SEED), mutated(JSON_SEED), mutated(TOML_SEED)),
    name=st.sampled_from(["c.yaml", "c.json", "c.py"]),
)
def test_configs_travel_or_are_refused(text: str, name: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    found = ours(lambda: record_config(data, name, (), lambda key, new, old: new))
    if not isinstance(found, AmlctlError):
        record = RunRecord("r", found)
        record = RunRecord.from_json(json.loads(json.dumps(record.to_json())))
        assert config_bytes(record.spec, None) == data
        assert len(json.dumps(config_values(found))) < 100_000


KEYS = [
    "lr",
    "name",
    "day",
    "flag",
    "betas",
    "betas.0",
    "model",
    "model.layers",
    "model.layers.1.width",
    "other",
    "none",
]
VALUES = [
    "1",
    "0.001",
    "1e-5",
    "x",
    "",
    "yes",
    "null",
    "[1, {a: b}]",
    '"q"',
    "2025-02-03",
    "a: b",
    "- c",
    "\n",
    "#",
    "'",
]


@EXAMPLES
@given(text=mutated(YAML_SEED), key=st.sampled_from(KEYS), value=st.sampled_from(VALUES))
def test_set_changes_one_value_of_yaml(text: str, key: str, value: str) -> None:
    text = text.replace("<<: *m2", "")
    changed = ours(lambda: with_overrides(text, "c.yaml", [f"{key}={value}"], lambda key, new, old: new, is_yaml=True))
    if not isinstance(changed, AmlctlError):
        before, after = (plain_value(yaml_documents(one, "c.yaml")[0]) for one in (text, changed))
        _check_only(before, after, key)


@EXAMPLES
@given(text=mutated(JSON_SEED), key=st.sampled_from(KEYS), value=st.sampled_from(VALUES))
def test_set_changes_one_value_of_json(text: str, key: str, value: str) -> None:
    changed = ours(lambda: with_overrides(text, "c.json", [f"{key}={value}"], lambda key, new, old: new, is_yaml=False))
    if not isinstance(changed, AmlctlError):
        before, after = (plain_value(json_documents(one, "c.json")[0]) for one in (text, changed))
        _check_only(before, after, key)


def _check_only(before: Any, after: Any, key: str) -> None:
    """All that differs is at `key`."""
    for part in key.split("."):
        if isinstance(before, list):
            before, after = list(before), list(after)
            at = int(part)
            rest = (before[:at] + before[at + 1 :], after[:at] + after[at + 1 :])
            before, after = before[at], after[at]
        else:
            rest = ({k: v for k, v in before.items() if k != part}, {k: v for k, v in after.items() if k != part})
            before, after = before[part], after[part]
        assert repr(rest[0]) == repr(rest[1])


@settings(max_examples=400)
@given(
    document=st.recursive(
        st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
        max_leaves=12,
    ),
    seed=st.integers(0, 1000),
)
def test_any_document_reads_as_the_libraries_read_it(document: Any, seed: int) -> None:
    text = json.dumps(document, ensure_ascii=seed % 2 == 0, indent=seed % 3 or None)
    assert plain_value(json_documents(text, "c.json")[0]) == document
    assume("\x85" not in text and "\\u0085" not in text)  # a line break to YAML 1.1 alone, and PyYAML folds it
    style = (None, True, False)[seed % 3]
    dumped = yaml.safe_dump({"v": document}, default_flow_style=style, allow_unicode=seed % 2 == 0)
    assert parse_yaml(dumped, "c.yaml").value == {"v": document}
