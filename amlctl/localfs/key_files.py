"""Files that hold keys and logins: they never go into a code snapshot unless `.amlctlignore` takes them back.

A name decides where it means a key and nothing else. Where other files have such a name too (`id_map.py`,
`settings.json`), the bytes decide: a file that begins as a private key does, or a JSON login of a cloud.
Names are compared without case: `SERVER.PEM` is one as well.
"""

from __future__ import annotations

import os
import re
import stat
from typing import Optional

KEY_SOURCE = "amlctl itself: keys, logins and .git stay at home"
PRIVATE_KEY = "a private key"
CLOUD_LOGIN = "the login of a service account"

_FOLDERS = (".ssh", ".aws", ".azure", ".gnupg", ".kube", ".git", ".kaggle", ".oci")
_FOLDERS_IN = ((".config", "gcloud"), (".config", "gh"))
_FILES = (
    *(".env", ".envrc", ".git", ".git-credentials", ".netrc", "_netrc", ".pgpass", ".my.cnf", ".htpasswd"),
    *(".pypirc", ".npmrc", ".dockercfg", ".s3cfg", ".boto", ".databrickscfg", ".vault-token"),
)
_FILES_IN = ((".docker", "config.json"), (".huggingface", "token"), ("huggingface", "token"))
_ENDINGS = (".pem", ".key", ".pfx", ".p12", ".ppk", ".jks", ".keystore", ".kdbx")
_TEMPLATES = ("example", "sample", "template", "tmpl", "dist", "defaults")
"""`.env.example` is written to be shared."""
_SSH_KEY = re.compile(r"id_(?:rsa|dsa|ecdsa|ed25519|xmss)(?:_sk)?(?:[-_.](?:bak|old|orig|backup|copy|\d+))*")
_SMALLEST_BYTES = 100
_LARGEST_BYTES = 64 << 10
_KEY_BEGINNING = re.compile(
    rb"\s*(?:-----BEGIN [A-Z0-9 ]*PRIVATE KEY|PuTTY-User-Key-File-|---- BEGIN SSH2 ENCRYPTED PRI)"
)
_LOGIN_PARTS = (
    (
        re.compile(rb'"type"\s*:\s*"(?:service_account|authorized_user)"'),
        re.compile(rb'"(?:private_key|refresh_token)"'),
    ),
    (re.compile(rb'"clientSecret"\s*:\s*"'), re.compile(rb'"tenantId"')),
    (re.compile(rb'"client_secret"\s*:\s*"'), re.compile(rb'"(?:tenant_id|token_uri)"')),
)
_CODE_ENDINGS = (".py", ".pyi", ".ipynb", ".md", ".rst", ".sh", ".yaml", ".yml", ".toml", ".csv", ".png", ".jpg")
"""Such a file does not begin with a key; it need not be opened."""


def key_name_pattern(name: str, parent: str, *, is_dir: bool) -> Optional[str]:
    """The pattern by which the name of a file or folder means keys; `parent` is the name of its folder."""
    name, parent = name.lower(), parent.lower()
    if is_dir:
        if name in _FOLDERS:
            return f"{name}/"
        return f"{parent}/{name}/" if (parent, name) in _FOLDERS_IN else None
    if name in _FILES:
        return name
    if name.startswith(".env.") and name.rpartition(".")[2] not in _TEMPLATES:
        return ".env.*"
    if (parent, name) in _FILES_IN:
        return f"{parent}/{name}"
    if name.endswith(_ENDINGS):
        return f"*{name[name.rindex('.') :]}"
    return "id_*" if _SSH_KEY.fullmatch(name) else None


def key_content(path: str) -> Optional[str]:
    """What the bytes of a file are, if they are a key; None also for one that cannot be read."""
    if path.lower().endswith(_CODE_ENDINGS):
        return None
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode) or not _SMALLEST_BYTES <= found.st_size <= _LARGEST_BYTES:
            return None
        with open(path, "rb", buffering=0) as file:
            if not path.lower().endswith(".json"):
                return PRIVATE_KEY if _KEY_BEGINNING.match(file.read(_SMALLEST_BYTES)) else None
            data = file.read(_LARGEST_BYTES)
    except OSError:
        return None
    is_login = any(all(part.search(data) for part in parts) for parts in _LOGIN_PARTS)
    return CLOUD_LOGIN if is_login else None
