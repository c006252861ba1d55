"""What amlctl itself logs in with: neither a script nor anything that it can look into has it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.contract.test_local import local_bench

LOGINS = {
    "AZURE_CLIENT_SECRET": "CANARY-client",
    "AZURE_PASSWORD": "CANARY-password",
    "AZURE_CLIENT_CERTIFICATE_PASSWORD": "CANARY-certificate",
    "AZURE_STORAGE_KEY": "CANARY-key",
    "AZURE_STORAGE_CONNECTION_STRING": "AccountName=a;AccountKey=CANARY-connection",
    "AZURE_STORAGE_SAS_TOKEN": "sig=CANARY-sas",
    "MSI_SECRET": "CANARY-msi",
    "IDENTITY_HEADER": "CANARY-header",
    "AMLCTL_STORE": "https://a.blob.core.windows.net/data?sig=CANARY-store",
}
PLAIN = {"AZURE_STORAGE_ACCOUNT": "a", "AZURE_CLIENT_ID": "b", "PLAIN": "c"}
LOOK = """
    import json, os
    chain, pid = {}, os.getpid()
    while pid > 1:
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                variables = dict(one.split(b"=", 1) for one in file.read().split(b"\\0") if b"=" in one)
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read()
            with open(f"/proc/{pid}/stat") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
        except FileNotFoundError:
            break
        text = lambda data: data.decode("utf-8", "replace")
        chain[pid] = {"command": text(words), "variables": {text(n): text(v) for n, v in variables.items()}}
        pid = parent
    print(json.dumps({"own": dict(os.environ), "chain": list(chain.values())}))
"""


def _look(tmp_path: Path, script: str = LOOK, **more: Any) -> dict[str, object]:
    bench = local_bench(tmp_path, variables={**LOGINS, **PLAIN})
    run = bench.start(script, **more)
    assert bench.finished(run).status == "Completed", bench.log(run)
    found = json.loads(bench.log(run))
    assert isinstance(found, dict)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_no_process_above_a_script_shows_them(tmp_path: Path) -> None:
    found = _look(tmp_path)
    chain = found["chain"]
    assert isinstance(chain, list)
    commands = [str(one["command"]) for one in chain]
    assert any("amlctl.runtime" in command for command in commands)
    assert any("workspaces.local.supervisor" in command for command in commands), "the supervisor is in the chain"
    ours = next(number for number, command in enumerate(commands) if "workspaces.local.supervisor" in command)
    for one in chain[: ours + 1]:
        assert "CANARY" not in json.dumps(one), one["command"]


def test_a_script_has_the_rest_of_the_shell(tmp_path: Path) -> None:
    own = _look(tmp_path)["own"]
    assert isinstance(own, dict)
    assert PLAIN.items() <= own.items()
    assert not [name for name, value in own.items() if "CANARY" in value]


def test_what_a_run_is_given_by_name_it_gets(tmp_path: Path) -> None:
    secrets = {"AZURE_CLIENT_SECRET": "CANARY-given", "BIG": "x" * 100_000, "HF_TOKEN": "y"}
    script = "import json, os; print(json.dumps({'own': {n: os.environ.get(n) for n in %r}}))"
    names = [*LOGINS, *secrets]
    own = _look(tmp_path, script % names[:-2], variables=dict.fromkeys(secrets), secrets=secrets)["own"]
    assert isinstance(own, dict)
    assert {name: value for name, value in own.items() if value} == {"AZURE_CLIENT_SECRET": "CANARY-given"}


def test_more_than_a_pipe_holds_arrives(tmp_path: Path) -> None:
    value = "x" * 100_000
    bench = local_bench(tmp_path)
    names = [f"BIG_{number}" for number in range(5)]
    script = f"import os; print(sum(len(os.environ[name]) for name in {names!r}))"
    run = bench.start(script, variables=dict.fromkeys(names), secrets=dict.fromkeys(names, value))
    assert bench.finished(run).status == "Completed", bench.log(run)
    assert bench.log(run).split() == [b"500000"]


def test_the_shell_of_the_tests_does_not_have_them() -> None:
    assert not LOGINS.keys() & os.environ.keys()
