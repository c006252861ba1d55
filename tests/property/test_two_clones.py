"""Random edits, syncs and pulls on two clones of a project, held against plain dicts.

The model is three dicts a clone: what is on its disk, and what it last agreed on with the store; the store is a
dict, too. Merging dicts path by path says what must come out.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from amlctl.core.events import null_sink
from amlctl.errors import Conflict
from amlctl.localfs.project import Project
from amlctl.operations.store.gc import gc
from amlctl.operations.store.needed import KeepRules
from amlctl.operations.sync.pull import pull
from amlctl.operations.sync.sync import SyncOptions, sync
from amlctl.stores.directory import DirectoryStore
from tests.support.clock import YEAR_LATER
from tests.support.context import Context
from tests.support.trees import Tree, read_tree

CLONES = st.sampled_from(["one", "two"])
# No path is the folder of another: merging shapes has tests of its own.
PATHS = st.sampled_from(["a", "b c", "d/e", "d/f", "g/h/i", "ü\n'", "p0", "p1", "p2", "p3", "p4", "p5"])
CONTENTS = st.one_of(st.binary(max_size=40), st.integers(0, 5).map(lambda n: b"%d" % n * 300))
DATASET = "working/x"


def merged(base: Tree, ours: Tree, theirs: Tree) -> Tree | None:
    """None where both changed the same path differently."""
    result: Tree = {}
    for path in {*base, *ours, *theirs}:
        b, o, t = base.get(path), ours.get(path), theirs.get(path)
        if o != t and t != b and o != b:
            return None
        chosen = t if o == b else o
        if chosen is not None:
            result[path] = chosen
    return result


class TwoClones(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.store = DirectoryStore(self.folder / "store")
        # Tiny limits: three files make a pack, everything above 200 bytes is an object.
        self.options = SyncOptions(layout="pack", pack_below=200, pack_size=300)
        self.projects = {name: Project(self.folder / name) for name in ("one", "two")}
        self.disk: dict[str, Tree] = {"one": {}, "two": {}}
        self.agreed: dict[str, Tree] = {"one": {}, "two": {}}
        self.stored: Tree | None = None
        for project in self.projects.values():
            project.dataset_path(DATASET).mkdir(parents=True)

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @rule(clone=CLONES, path=PATHS, data=CONTENTS)
    def write(self, clone: str, path: str, data: bytes) -> None:
        target = self.projects[clone].dataset_path(DATASET) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        self.disk[clone][path] = data

    @rule(clone=CLONES, path=PATHS)
    def remove(self, clone: str, path: str) -> None:
        if path in self.disk[clone]:
            root = self.projects[clone].dataset_path(DATASET)
            (root / path).unlink()
            folder = (root / path).parent
            while folder != root and not any(folder.iterdir()):
                folder.rmdir()
                folder = folder.parent
            del self.disk[clone][path]

    @rule(clone=CLONES)
    def sync(self, clone: str) -> None:
        expected = merged(self.agreed[clone], self.disk[clone], self.stored or {})
        try:
            result = sync(Context(self.projects[clone], self.store), DATASET, self.options)
        except Conflict:
            assert expected is None
            return
        assert expected is not None
        assert (result.files, result.bytes) == (len(expected), sum(map(len, expected.values())))
        self.stored = expected
        self.agreed[clone] = dict(self.disk[clone])

    @rule(clone=CLONES, prefer=st.sampled_from(["", "ours", "theirs"]))
    def pull(self, clone: str, prefer: str) -> None:
        if self.stored is None:
            return
        options = SyncOptions(
            layout="pack", pack_below=200, pack_size=300, ours=prefer == "ours", theirs=prefer == "theirs"
        )
        disk, agreed = self.disk[clone], self.agreed[clone]
        expected = merged(agreed, disk, self.stored)
        if expected is None and prefer:
            expected = {}
            for path in {*disk, *self.stored, *agreed}:
                b, o, t = agreed.get(path), disk.get(path), self.stored.get(path)
                is_conflict = o != t and t != b and o != b
                chosen = (o if prefer == "ours" else t) if is_conflict else t if o == b else o
                if chosen is not None:
                    expected[path] = chosen
        try:
            pull(Context(self.projects[clone], self.store), DATASET, options)
        except Conflict:
            assert expected is None
            return
        assert expected is not None
        self.disk[clone] = expected
        self.agreed[clone] = dict(self.stored)

    @rule(clone=CLONES)
    def forget_local_state(self, clone: str) -> None:
        shutil.rmtree(self.projects[clone].state_dir, ignore_errors=True)
        self.agreed[clone] = {}

    @rule()
    def collect_garbage(self) -> None:
        gc(self.store, KeepRules(YEAR_LATER), delete=True, sink=null_sink)

    @invariant()
    def disks_are_as_the_model_says(self) -> None:
        for name, project in self.projects.items():
            assert read_tree(project.dataset_path(DATASET)) == self.disk[name]

    @invariant()
    def a_third_clone_sees_what_is_stored(self) -> None:
        if self.stored is None:
            return
        third = Project(self.folder / "third")
        shutil.rmtree(third.root, ignore_errors=True)
        third.data_blobs_dir.mkdir(parents=True)
        pull(Context(third, self.store), DATASET, self.options)
        assert read_tree(third.dataset_path(DATASET)) == self.stored


TwoClones.TestCase.settings = settings(max_examples=40, stateful_step_count=25)
TestTwoClones = TwoClones.TestCase
