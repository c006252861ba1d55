"""Secrets among the arguments and settings of a script: it gets them, and nothing that is kept has them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from amlctl.errors import UsageError
from amlctl.operations.submit import plan
from tests.support.bench import Bench

SECRETS = ("first-secret", 'second: "secret" \\ü', "http://h/?sig=third-secret", "fourth-secret")
BACKWARDS = """
    import os, pathlib, sys
    words = [*sys.argv[3:], os.environ["MY_TOKEN"]]
    text = pathlib.Path(sys.argv[2]).read_text(encoding="utf-8")
    out = pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"])
    out.joinpath("words").write_text("\\n".join(word[::-1] for word in words))
    out.joinpath("config").write_text(text[::-1])
"""


@pytest.mark.parametrize("config", ["c.json", "c.yaml"])
def test_they_reach_the_script_and_no_record(bench: Bench, config: str) -> None:
    bench.write("pipeline/c.json", '{"max_tokens": 1, "service": {"api_key": "", "url": "x"}}')
    bench.write("pipeline/c.yaml", "max_tokens: 1\nservice:\n  api_key: ''  # none\n  url: x\n")
    bench.script(BACKWARDS)
    typed = {
        "config": config,
        "overrides": ("service.api_key=" + SECRETS[1], "service.url=" + SECRETS[2], "max_tokens=512"),
        "arguments": ("--hf-token", SECRETS[0], "--token=" + SECRETS[0], "--max-tokens", "512", "x" + SECRETS[3]),
        "variables": {"MY_TOKEN": SECRETS[3]},
    }
    command_line = ("amlctl", *(f"--set={one}" for one in typed["overrides"]), "--", *typed["arguments"])
    record = bench.submit("train.py", **typed, command_line=command_line).record
    assert record.status == "Completed"
    # os.walk, since the run's container may just be going.
    for folder, _, names in os.walk(bench.project.root):
        for path in (Path(folder) / name for name in names):
            with suppress(FileNotFoundError):
                assert not [secret for secret in SECRETS if secret.encode() in path.read_bytes()], path
    assert "512" in record.arguments
    assert record.variables["MY_TOKEN"] is None
    _has_seen(bench, record.run, typed["arguments"])

    with pytest.raises(UsageError, match="AMLCTL_SECRET_") as caught:
        bench.submit(from_run=record.run, variables={"MY_TOKEN": SECRETS[3]})
    assert "--env AMLCTL_SECRET_" in caught.value.hint
    values = {"AMLCTL_SECRET_SET_SERVICE_API_KEY": SECRETS[1], "AMLCTL_SECRET_SET_SERVICE_URL": SECRETS[2]}
    values |= {"AMLCTL_SECRET_ARG_HF_TOKEN": SECRETS[0], "AMLCTL_SECRET_ARG_TOKEN": SECRETS[0]}
    again = bench.submit(from_run=record.run, variables={"MY_TOKEN": SECRETS[3], **values}).record
    assert again.status == "Completed"
    assert again.config_content == record.config_content
    assert again.arguments == record.arguments
    _has_seen(bench, again.run, typed["arguments"])

    other = bench.submit(
        from_run=record.run,
        arguments=("--hf-token", "another-secret"),
        overrides=typed["overrides"],
        variables={"MY_TOKEN": SECRETS[3]},
    ).record
    _has_seen(bench, other.run, ("--hf-token", "another-secret"))


def _has_seen(bench: Bench, run: str, arguments: tuple[str, ...]) -> None:
    outputs = Path(bench.project.outputs_dir, run)
    words = [word[::-1] for word in outputs.joinpath("words").read_text(encoding="utf-8").split("\n")]
    assert words == [*arguments, SECRETS[3]]
    config = yaml.safe_load(outputs.joinpath("config").read_text(encoding="utf-8")[::-1])
    assert config == {"max_tokens": 512, "service": {"api_key": SECRETS[1], "url": SECRETS[2]}}


def test_a_dry_run_shows_none(bench: Bench) -> None:
    bench.write("pipeline/c.json", '{"api_key": ""}')
    bench.script("print(1)")
    request = bench.request(
        "train.py", config="c.json", overrides=("api_key=xyzzy-1",), arguments=("--token", "xyzzy-2")
    )
    found = plan(request, bench.project, bench.settings, bench.workspace, bench.store, bench.events.append)
    assert "xyzzy" not in str(found.to_json())


def test_a_secret_that_is_no_text_is_refused(bench: Bench) -> None:
    bench.write("pipeline/c.json", '{"api_key": null, "max_tokens": null}')
    bench.script("print(1)")
    with pytest.raises(UsageError, match="api_key") as caught:
        bench.submit("train.py", config="c.json", overrides=("api_key=123456",))
    assert "--env" in caught.value.hint
    assert bench.submit("train.py", config="c.json", overrides=("max_tokens=9",)).record.config_content == {
        "api_key": None,
        "max_tokens": 9,
    }
