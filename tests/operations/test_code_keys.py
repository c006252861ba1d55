"""Keys and logins stay out of a code snapshot; files that only sound like them do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from amlctl.core.events import Note
from amlctl.localfs.code_rules import code_rules
from amlctl.localfs.project import Project
from amlctl.operations.why import why
from amlctl.runs.code import collect_code
from tests.support.bench import Bench

BEGIN = "-----BEGIN {}PRIVATE KEY-----\n" + "A" * 64 + "\n"
SERVICE_ACCOUNT = {
    "type": "service_account",
    "project_id": "x",
    "private_key": BEGIN.format("") * 3,
    "client_email": "y",
}

KEYS = [
    *[".env", ".env.local", ".env.production", ".ENV", ".envrc", ".netrc", "_netrc", ".pgpass", ".pypirc", ".npmrc"],
    *["id_rsa", "id_ed25519", "id_ecdsa_sk", "id_rsa.bak", "id_rsa_2", "server.pem", "Server.PEM", "tls.key", "c.pfx"],
    *["c.p12", "putty.ppk", "trust.jks", ".git-credentials", ".dockercfg", ".docker/config.json", ".ssh/known_hosts"],
    *[
        ".aws/credentials",
        ".azure/msal_token_cache.json",
        ".gnupg/x",
        ".kube/config",
        ".config/gcloud/x.db",
        "v/.git/config",
    ],
    *["deep/down/.aws/config", "v/.git", ".s3cfg", ".kaggle/kaggle.json"],
]
ORDINARY = [
    *[
        "a.py",
        "id_map.py",
        "id_labels.json",
        "id_rsa.pub",
        "id_rsa.py",
        "id_cards/x.png",
        "ids.txt",
        "id",
        "identity.py",
    ],
    *[
        ".env.example",
        ".env.sample",
        "env.py",
        ".envs/x.yaml",
        "environment.yml",
        "keys.py",
        "key.json",
        "keyboard.png",
    ],
    *["pem.py", "pemmican.txt", "monkey", "turkey.csv", "token.txt", "tokens.json", "tokenizer.json", "secrets.py"],
    *["config.json", "docker/config.json", ".github/workflows/ci.yml", ".gitignore", ".gitattributes", ".gitmodules"],
    *["git/x.py", "aws/s3.py", "ssh.py", ".sshrc", "azure/x.py", ".azureml/config.json", ".awscli.md", ".dockerignore"],
    *["credentials.py", "auth/login.py", "cert.crt", "public.asc", "vocab.key.txt", ".config/app.toml", "passwd.csv"],
]


def make(root: Path, path: str, text: str = "x") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text, encoding="utf-8")


def collected(root: Path) -> tuple[list[str], list[str]]:
    """What would be sent, and what was said."""
    events: list[object] = []
    code = collect_code(root / "pipeline", code_rules(Project(root)), sink=events.append)
    return [entry.path.removeprefix("pipeline/") for entry in code.own], [
        event.message for event in events if isinstance(event, Note)
    ]


@pytest.mark.parametrize("path", KEYS)
def test_a_key_stays_at_home_and_is_reported(tmp_path: Path, path: str) -> None:
    make(tmp_path / "pipeline", path)
    make(tmp_path / "pipeline", "train.py")
    paths, reported = collected(tmp_path)
    assert paths == ["train.py"]
    assert bool(reported) == (".git" not in path.split("/"))
    if reported:
        assert "1 file or folder" in reported[0]
        assert path.split("/")[0] in reported[0]


def test_ordinary_files_are_sent(tmp_path: Path) -> None:
    for path in ORDINARY:
        make(tmp_path / "pipeline", path)
    paths, reported = collected(tmp_path)
    assert paths == sorted(ORDINARY, key=str.encode)
    assert not reported


@pytest.mark.parametrize(
    ("name", "text", "is_key"),
    [
        ("id_work", BEGIN.format("OPENSSH ") * 2, True),
        ("deploy", BEGIN.format("RSA ") * 2, True),
        ("putty.txt", "PuTTY-User-Key-File-2: ssh-rsa\n" + "x" * 100, True),
        ("robot.json", json.dumps(SERVICE_ACCOUNT, indent=2), True),
        ("sp.json", json.dumps({"clientId": "a", "clientSecret": "b", "tenantId": "c", "more": "x" * 60}), True),
        ("test_keys.py", f'KEY = """{BEGIN.format("RSA ")}"""', False),
        ("id_work", "17\n" * 100, False),
        ("public.txt", "-----BEGIN PUBLIC KEY-----\n" + "A" * 100, False),
        ("robot.json", json.dumps({"type": "service_account", "note": "x" * 100}), False),
        ("train.json", json.dumps({"clientSecret": "", "lr": [0.1] * 40}), False),
        ("big.txt", BEGIN.format("") + "A" * 100_000, False),
    ],
)
def test_the_bytes_decide_where_the_name_does_not(tmp_path: Path, name: str, text: str, is_key: bool) -> None:
    make(tmp_path / "pipeline", name, text)
    assert collected(tmp_path)[0] == ([] if is_key else [name])


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("!.env", [".env"]),
        ("!pipeline/.env\n!*.pem", [".env", "ca.pem"]),
        ("!/pipeline/.ssh/known_hosts", [".ssh/known_hosts"]),
        ("!.ssh/", [".ssh/config", ".ssh/known_hosts"]),
        ("!.git/", ["v/.git/HEAD", "v/.git/info/x"]),
        ("!pipeline/v/.git/info/x", ["v/.git/info/x"]),
        ("# nothing", []),
    ],
)
def test_amlctlignore_takes_them_back(tmp_path: Path, lines: str, expected: list[str]) -> None:
    for path in (".env", "ca.pem", ".ssh/config", ".ssh/id_rsa", ".ssh/known_hosts", "v/.git/HEAD", "v/.git/info/x"):
        make(tmp_path / "pipeline", path)
    make(tmp_path, ".amlctlignore", lines)
    assert collected(tmp_path)[0] == expected


def test_gitignore_does_not_take_them_back(tmp_path: Path) -> None:
    make(tmp_path / "pipeline", ".gitignore", "!.env\n")
    make(tmp_path / "pipeline", ".amlignore", "!.env\n")
    make(tmp_path / "pipeline", ".env")
    assert collected(tmp_path)[0] == [".amlignore", ".gitignore"]


def test_many_are_reported_in_one_line(tmp_path: Path) -> None:
    for path in ("a/.env", "b/.env", "c/.ssh/x", "d/k.pem", "e/k.pem"):
        make(tmp_path / "pipeline", path)
    (reported,) = collected(tmp_path)[1]
    assert "5 files and folders" in reported
    assert "a/.env, b/.env, c/.ssh/ and 2 more; " in reported
    assert "!PATH" in reported


def test_why_names_the_rule(bench: Bench) -> None:
    path = bench.write("pipeline/deep/server.pem", "x")
    found = why(bench, path)
    assert (found.is_ignored, found.rule, found.rule_line) == (True, "*.pem", None)
    assert "keys" in str(found.rule_file)
    bench.write(".amlctlignore", "!server.pem\n")
    found = why(bench, path)
    assert (found.is_ignored, found.rule, found.rule_file) == (False, "!server.pem", ".amlctlignore")
