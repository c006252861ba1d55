"""Secrets among the arguments and settings of a script: it gets them, and nothing that is kept has them."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from amlctl.errors import UsageError
from amlctl.operations.submit.submit import plan
from tests.support.bench import Bench, wait_until_tidied
from tests.support.wheels import copy_installed

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
    typed: dict[str, Any] = {
        "config": config,
        "overrides": ("service.api_key=" + SECRETS[1], "service.url=" + SECRETS[2], "max_tokens=512"),
        "arguments": ("--hf-token", SECRETS[0], "--token=" + SECRETS[0], "--max-tokens", "512", "x" + SECRETS[3]),
        "variables": {"MY_TOKEN": SECRETS[3]},
    }
    command_line = ("amlctl", *(f"--set={one}" for one in typed["overrides"]), "--", *typed["arguments"])
    record = bench.submit("train.py", **typed, command_line=command_line).record
    assert record.status == "Completed"
    wait_until_tidied(bench)
    for folder, _, names in os.walk(bench.project.root):
        for path in (Path(folder) / name for name in names):
            with suppress(FileNotFoundError):
                assert not [secret for secret in SECRETS if secret.encode() in path.read_bytes()], path
    assert "512" in record.spec.arguments
    assert record.spec.variables["MY_TOKEN"] is None
    _has_seen(bench, record.run, typed["arguments"])

    with pytest.raises(UsageError, match="AMLCTL_SECRET_") as caught:
        bench.submit(from_run=record.run, variables={"MY_TOKEN": SECRETS[3]})
    assert "--env AMLCTL_SECRET_" in caught.value.hint
    values = {"AMLCTL_SECRET_SET_SERVICE_API_KEY": SECRETS[1], "AMLCTL_SECRET_SET_SERVICE_URL": SECRETS[2]}
    values |= {"AMLCTL_SECRET_ARG_HF_TOKEN": SECRETS[0], "AMLCTL_SECRET_ARG_TOKEN": SECRETS[0]}
    again = bench.submit(from_run=record.run, variables={"MY_TOKEN": SECRETS[3], **values}).record
    assert again.status == "Completed"
    assert again.spec.config_content == record.spec.config_content
    assert again.spec.arguments == record.spec.arguments
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
    found = plan(bench, request)
    assert "xyzzy" not in str(found.to_json())


def test_a_secret_that_is_not_a_string_is_refused(bench: Bench) -> None:
    bench.write("pipeline/c.json", '{"api_key": null, "max_tokens": null}')
    bench.script("print(1)")
    with pytest.raises(UsageError, match="api_key") as caught:
        bench.submit("train.py", config="c.json", overrides=("api_key=123456",))
    assert "--env" in caught.value.hint
    assert bench.submit("train.py", config="c.json", overrides=("max_tokens=9",)).record.spec.config_content == {
        "api_key": None,
        "max_tokens": 9,
    }


def _kept(bench: Bench, word: str) -> list[str]:
    """Files of the project, its state and its store that hold the word."""
    wait_until_tidied(bench)
    found = []
    for folder, _, names in os.walk(bench.project.root):
        for path in (Path(folder) / name for name in names):
            with suppress(FileNotFoundError):
                if word.encode() in path.read_bytes():
                    found.append(str(path.relative_to(bench.project.root)))
    return found


def test_a_run_with_names_that_look_secret_is_repeated_exactly(bench: Bench) -> None:
    bench.script("import sys; print(sys.argv[1:])")
    words = ("--label-key", "name", "--pad-token", "<pad>", "--sort-key=date", "--num-tokens", "5", "--eos-token", "x")
    first = bench.submit("train.py", arguments=words, variables={"PAD_TOKEN": "x", "SORT_KEY": "y"}).record
    assert tuple(first.spec.arguments) == words
    assert first.spec.variables == {"PAD_TOKEN": "x", "SORT_KEY": "y"}
    again = bench.submit(from_run="@last").record
    assert (again.spec.arguments, again.spec.variables) == (first.spec.arguments, first.spec.variables)


def test_tags_and_the_command_line_are_masked(bench: Bench) -> None:
    bench.script("print(1)")
    tags = {"token": "CANARY-1", "url": "https://me:CANARY-2@h/x", "team": "vision"}
    typed = ("amlctl", "submit", "train.py", *(f"--tag={name}={value}" for name, value in tags.items()))
    record = bench.submit("train.py", tags=tags, command_line=typed).record
    assert record.spec.tags == {"token": "***", "url": "https://me:***@h/x", "team": "vision"}
    assert not _kept(bench, "CANARY")


def test_the_user_says_what_is_a_secret(bench: Bench) -> None:
    bench.write("pipeline/c.json", '{"patient": "", "rate": 1}')
    bench.script("""
        import json, os, sys
        out = os.path.join(os.environ["AMLCTL_OUTPUTS_DIR"], "seen")
        seen = [sys.argv[3:], json.load(open(sys.argv[2])), os.environ["DIAGNOSIS"], os.environ["SHELL_WORD"]]
        open(out, "w").write(json.dumps(seen)[::-1])
    """)
    given: dict[str, Any] = {
        "config": "c.json",
        "overrides": ("patient=CANARY smith",),
        "arguments": ("--ward-name", "CANARY-north", "--epochs", "3"),
        "variables": {"DIAGNOSIS": "CANARY-flu"},
        "tags": {"ward_name": "CANARY-north"},
        "secrets": ("patient", "WARD_NAME", "DIAGNOSIS", "SHELL_WORD"),
        "caller_variables": {"SHELL_WORD": "CANARY-shell"},
    }
    command_line = ("amlctl", "submit", *given["overrides"], *given["arguments"], "--tag", "ward_name=CANARY-north")
    record = bench.submit("train.py", **given, command_line=command_line).record
    assert record.status == "Completed"
    assert not _kept(bench, "CANARY")
    seen = json.loads((bench.project.outputs_dir / record.run / "seen").read_text()[::-1])
    config = {"patient": "CANARY smith", "rate": 1}
    assert seen == [list(given["arguments"]), config, "CANARY-flu", "CANARY-shell"]
    with pytest.raises(UsageError, match="must be given again") as caught:
        bench.submit(from_run=record.run, variables={"DIAGNOSIS": "x", "SHELL_WORD": "y"})
    assert any("--ward-name" in detail for detail in caught.value.details)
    with pytest.raises(UsageError) as all_of_them:
        bench.submit(from_run=record.run)
    assert len(all_of_them.value.details) == 4
    assert "DIAGNOSIS" in all_of_them.value.message
    assert any("config" in detail for detail in caught.value.details)


@pytest.mark.parametrize("name", ["", "--", "TOKEN=CANARY"])
def test_what_is_not_a_name_is_refused_without_showing_it(bench: Bench, name: str) -> None:
    bench.script("print(1)")
    with pytest.raises(UsageError) as caught:
        bench.submit("train.py", secrets=(name,))
    assert "CANARY" not in f"{caught.value.message} {caught.value.hint}"


def test_a_named_variable_that_the_shell_lacks_is_asked_for(bench: Bench) -> None:
    bench.script("print(1)")
    with pytest.raises(UsageError, match="UNKNOWN_HERE"):
        bench.submit("train.py", secrets=("UNKNOWN_HERE",))


class _Index(BaseHTTPRequestHandler):
    """A package index behind a password that has amlctl's own need alone, and notes who asked."""

    def do_GET(self) -> None:
        self.server.asked.append(self.headers.get("Authorization", ""))  # type: ignore[attr-defined]
        if not self.headers.get("Authorization"):
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="x"')
            body = b""
        else:
            wheel: Path = self.server.wheel  # type: ignore[attr-defined]
            pages = {"/simple/xxhash/": f'<a href="/{wheel.name}">{wheel.name}</a>'.encode()}
            pages[f"/{wheel.name}"] = wheel.read_bytes()
            body = pages.get(self.path, b"")
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/html" if self.path.startswith("/simple") else "application/zip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def index(tmp_path: Path) -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), _Index) as server:
        server.asked = []  # type: ignore[attr-defined]
        server.wheel = copy_installed(tmp_path / "wheels", "xxhash")  # type: ignore[attr-defined]
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_password_of_a_package_index_reaches_pip_and_no_record(bench: Bench, index: HTTPServer) -> None:
    url = f"http://user:CANARYPIP@127.0.0.1:{index.server_port}/simple"
    text = f"name: x\ndependencies:\n  - python\n  - pip:\n    - --index-url {url}\n"
    bench.write("pptdaml.yaml", text)
    bench.script("print(1)")
    record = bench.submit("train.py", environment=None).record
    assert record.status == "Completed"
    assert "Basic " + base64.b64encode(b"user:CANARYPIP").decode() in index.asked  # type: ignore[attr-defined]
    assert "user:<secret:AMLCTL_SECRET_ENVIRONMENT_1>@127.0.0.1" in str(record.spec.environment_content)
    assert _kept(bench, "CANARYPIP") == ["pptdaml.yaml"]

    again = bench.submit(from_run=record.run).record  # the password is taken from the project's file
    assert again.spec.environment == record.spec.environment
    bench.write("pptdaml.yaml", text + "    - numpy\n")
    with pytest.raises(UsageError, match="AMLCTL_SECRET_ENVIRONMENT_1") as caught:
        bench.submit(from_run=record.run)
    assert "package index" in caught.value.details[0]
    given = bench.submit(from_run=record.run, variables={"AMLCTL_SECRET_ENVIRONMENT_1": "CANARYPIP"}).record
    assert given.spec.environment == record.spec.environment
