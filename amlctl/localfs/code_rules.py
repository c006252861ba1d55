"""Which files below one folder belong to a code snapshot.

In this order, the first that says something decides: `.amlctlignore`, amlctl's own rule for keys and logins,
`.amlignore`, then what Git ignores: `.gitignore` from the repository's top downwards, `.git/info/exclude`, the user's
`core.excludesFile`. The patterns decide alone: Git's index is not asked.

Files with keys and logins are known by their names, and by their first bytes.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Optional

from amlctl.errors import RightsError
from amlctl.localfs.git import exclude_file, repository_top, user_exclude_file
from amlctl.localfs.ignore import FolderRules, IgnoreRules, Rule, RuleChain, read_rules
from amlctl.localfs.project import Project

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


OWN_IGNORE_FILE = ".amlctlignore"
GIT_IGNORE_FILE = ".gitignore"
CODE_IGNORE_FILES = (OWN_IGNORE_FILE, ".amlignore", GIT_IGNORE_FILE)
"""The first has the last word."""


class CodeRules(IgnoreRules):
    """Rules for a walk of `top`; all but Git's begin at `base`, at or above `top`. Not thread-safe.

    A repository whose rules ignore `base` as a whole (a home folder under Git, with `*`) says nothing about it.
    """

    def __init__(self, base: Path, top: Path, extra: Sequence[str] = ()) -> None:
        """`extra` are patterns relative to `base`, weaker than all else. Raises RightsError."""
        inside = top.relative_to(base)
        self._base = Path(os.path.realpath(base))
        root = _repository_of(self._base)
        self._base_path = "" if self._base == root else self._base.relative_to(root).as_posix()
        self.sealed: dict[str, Rule] = {}
        """Folders of keys, from the root, of which some file is taken back: all others in them stay at home."""
        prefix = f"/{_escaped(self._base_path)}" if self._base_path else ""
        super().__init__(
            root,
            CODE_IGNORE_FILES,
            [f"{prefix}/{pattern.lstrip('/')}" for pattern in extra],
            top=self._base / inside,
            also={GIT_IGNORE_FILE: [*_excluded(root, "", self._base), *_user_excluded(root)]},
        )

    def enter(self, folder: str, names: Collection[str]) -> FolderRules:
        path = self._from_root(folder)
        return _CodeFolderRules(self, self._chain_of(path, names), path, self._root / path)

    def from_top(self, path: str) -> str:
        return path[len(self._top) + 1 :] if self._top else path

    def _own_rules(self, folder: str, name: str, is_there: bool) -> Sequence[Rule]:
        is_git = name == GIT_IGNORE_FILE
        if self._base_path and not f"{folder}/".startswith(f"{self._base_path}/"):
            source = f"{folder}/{name}" if folder else name
            return _read_foreign(self._root / source, self._shown(source), folder) if is_git and is_there else ()
        rules = super()._own_rules(folder, name, is_there)
        if is_git and folder and os.path.lexists(self._root / folder / ".git"):
            return (*rules, *_excluded(self._root / folder, folder, self._base))
        return rules

    def _shown(self, source: str) -> str:
        return os.path.relpath(self._root / source, self._base)


class _CodeFolderRules(FolderRules):
    def __init__(self, owner: CodeRules, chain: RuleChain, path: str, full: Path) -> None:
        super().__init__(chain, path)
        self._owner = owner
        self._path = path
        self._full = full
        self.is_empty = False
        self._seal = owner.sealed.get(path)

    def screen(self) -> None:
        """Bytes may decide."""

    def match(self, name: str, is_dir: bool) -> Optional[Rule]:
        is_ignored, rule = self.decide(name, is_dir)
        if is_ignored and rule is not None and rule.source == KEY_SOURCE and name != ".git":
            path = f"{self._path}/{name}" if self._path else name
            self._owner.left_out[self._owner.from_top(path) + ("/" if is_dir else "")] = rule
        return rule if is_ignored else None

    def decide(self, name: str, is_dir: bool) -> tuple[bool, Optional[Rule]]:
        own, *others = self._chain.layers
        rule = self._first_match(own, name, is_dir)
        if rule is not None:
            return not rule.is_negated, rule
        key = self._seal or self._key_rule(name, is_dir)
        if key is not None:
            if is_dir and any(one.is_negated and f"{name}/" in one.body for one in own):
                self._owner.sealed[f"{self._path}/{name}" if self._path else name] = key
                return False, key
            return True, key
        rule = self._first_match([rule for layer in others for rule in layer], name, is_dir)
        return rule is not None and not rule.is_negated, rule

    def _key_rule(self, name: str, is_dir: bool) -> Optional[Rule]:
        found = key_name_pattern(name, self._full.name, is_dir=is_dir)
        if found is None and not is_dir:
            found = key_content(os.path.join(self._full, name))
        return None if found is None else Rule(found, KEY_SOURCE, 0, False, is_dir, True, "", _NOTHING)


def code_rules(project: Project) -> CodeRules:
    """Raises RightsError."""
    return CodeRules(project.root, project.pipeline_dir)


def job_code_rules(project: Project, code_dir: Path) -> CodeRules:
    """For the code of a job file: what a project keeps beside its code stays out as well. Raises RightsError."""
    base = project.root if code_dir.is_relative_to(project.root) else code_dir
    apart = [code_dir / "outputs", project.data_blobs_dir, project.outputs_dir, project.state_dir]
    patterns = [
        "/" + _escaped(folder.relative_to(base).as_posix()) + "/" for folder in apart if folder.is_relative_to(code_dir)
    ]
    return CodeRules(base, code_dir, patterns)


_NOTHING = re.compile("(?!)")


def _repository_of(base: Path) -> Path:
    """The top of the repository that `base` belongs to; `base` itself where it belongs to none."""
    top = repository_top(base)
    if top is None or top == base:
        return base
    rules = IgnoreRules(top, (GIT_IGNORE_FILE,), also={GIT_IGNORE_FILE: _excluded(top, "", base)})
    parts = base.relative_to(top).parts
    try:
        for depth, part in enumerate(parts):
            if rules.enter("/".join(parts[:depth]), (GIT_IGNORE_FILE,)).match(part, True) is not None:
                return base
    except RightsError:
        pass  # `CodeRules` continues without that file as well
    return top


def _excluded(top: Path, folder: str, shown_from: Path) -> Sequence[Rule]:
    path = exclude_file(top)
    return _read_foreign(path, os.path.relpath(path, shown_from), folder) if path is not None else ()


def _user_excluded(root: Path) -> Sequence[Rule]:
    path = user_exclude_file(root)
    return _read_foreign(path, str(path), "") if path is not None else ()


def _read_foreign(path: Path, source: str, folder: str) -> Sequence[Rule]:
    """As Git does, continue without a file outside of the project that cannot be read."""
    try:
        return read_rules(path, source, folder)
    except RightsError:
        return ()


def _escaped(path: str) -> str:
    return re.sub(r"([*?\[\\])", r"\\\1", path)
