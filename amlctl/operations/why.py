"""`why`: whether a path is ignored, and which dataset, snapshot and pack hold it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from amlctl.core.manifest import ONE_FILE, FileEntry
from amlctl.core.message import Command
from amlctl.errors import NotFound, StoreGone
from amlctl.localfs.code_rules import code_rules
from amlctl.localfs.ignore import Rule, dataset_rules, decide_path
from amlctl.localfs.project import Project
from amlctl.localfs.read_file import file_content_id
from amlctl.operations.context import Context, Document
from amlctl.operations.status import known_datasets
from amlctl.operations.sync.dataset_state import local_state
from amlctl.snapshots.contents import place_key
from amlctl.snapshots.heads import read_head
from amlctl.snapshots.manifests import read_manifest


@dataclass(frozen=True)
class Why(Document):
    """`rule` decided (None: no rule matches), `rule_file` and `rule_line` say where it stands. `dataset` and what
    follows are of the dataset in the store that holds the path, `place` is the key of its bytes in the store. `state`
    compares the file here with the one there: synced, new, modified, deleted."""

    path: str
    is_ignored: bool
    rule: str | None
    rule_file: str | None
    rule_line: int | None
    dataset: str | None = None
    snapshot: str | None = None
    content_id: str | None = None
    place: str | None = None
    state: str | None = None


def why(context: Context, path: Path) -> Why:
    """`path` is absolute. Raises NotFound: neither on this disk nor in a synced dataset, or outside of what is
    synced."""
    project = context.project
    if path.is_relative_to(project.pipeline_dir):
        is_ignored, rule, _ = decide_path(code_rules(project), project.pipeline_dir, path)
        return _answer(project, path, is_ignored, rule)
    if not path.is_relative_to(project.data_blobs_dir):
        raise NotFound(f"{path} is outside of pipeline/ and data_blobs/", hint="nothing else is synced or sent")
    name = path.relative_to(project.data_blobs_dir).as_posix()
    with local_state(context, "amlctl why", is_reading=True) as state:
        known = known_datasets(context, state)
    dataset = max((d for d in known if name == d or name.startswith(f"{d}/")), key=len, default="")
    root = project.dataset_path(dataset) if dataset else project.data_blobs_dir
    is_ignored, rule, _ = decide_path(dataset_rules(project, dataset, context.settings.sync.ignore), root, path)
    answer = _answer(project, path, is_ignored, rule)
    try:
        head = read_head(context.store, dataset) if dataset else None
    except StoreGone:  # it was warned of above
        if not path.exists():
            raise
        head = None
    if head is not None:
        answer = replace(answer, dataset=dataset, snapshot=head.snapshot)
        manifest = read_manifest(context.store, head.manifest_key)
        inside = ONE_FILE if name == dataset else name[len(dataset) + 1 :]
        for entry in manifest.entries:
            if entry.path == inside:
                place = manifest.places.get(entry.content_id)
                key = None if place is None else place_key(manifest, entry, place)
                found = _state(path, entry)
                return replace(answer, content_id=entry.content_id, place=key, state=found)
    if not path.exists():
        raise NotFound(f"{path} does not exist, and no synced dataset has it", hint=Command("status"))
    return replace(answer, state="new") if head is not None and path.is_file() else answer


def _state(path: Path, entry: FileEntry) -> str | None:
    try:
        if path.stat().st_size != entry.size_bytes:
            return "modified"
        return "synced" if file_content_id(path) == entry.content_id else "modified"
    except FileNotFoundError:
        return "deleted"
    except OSError:  # unreadable, so the state is unknown
        return None


def _answer(project: Project, path: Path, is_ignored: bool, rule: Rule | None) -> Why:
    shown = path.relative_to(project.root).as_posix()
    if rule is None:
        return Why(shown, is_ignored, None, None, None)
    return Why(shown, is_ignored, rule.pattern, rule.source, rule.line or None)
