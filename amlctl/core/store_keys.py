"""The keys of a store, all of them: what stands where, and how a key is read back.

    format.json, gc/running             which format the store has, and its identity; which gc deletes (a lease)
    packs/ab/<pack>.zip                 many small contents
    objects/ab/<content id>             one large content
    mirror/<dataset>/<path>             plain files of a mirrored dataset
    datasets/<dataset>/…                HEAD, manifests, `shards/` of manifests, the lease of a mirror
    runs/<run>/…                        record, logs, outputs
    code/<code id>/…, code/<code id>.json   a code snapshot and its index

A dataset is `datasets/<dataset>`, each part of its name spelled so that every store and disk takes it. Letters, marks,
digits, punctuation and symbols stay as they are, so that a name is as long there as here. Escaped as %XX are the bytes
of all else: controls, what URLs and shells treat in their own way, bytes that are not UTF-8, and text that is not in
normal form C, which some disks would change. Unicode 3.2, which every Python has, decides: with the tables of each
version the same name would be spelled in two ways. Format 1 of names escaped every byte of such a part. A dataset that
was written so is read there (`old_folder`), and its next commit goes to the new spelling.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from amlctl.core.manifest import ONE_FILE, path_bytes, unescape_path
from amlctl.errors import UsageError

FORMAT_KEY = "format.json"
GC_KEY = "gc/running"
PACKS = "packs/"
OBJECTS = "objects/"
DATASETS = "datasets/"
CODE = "code/"
RUNS = "runs/"


class Area(NamedTuple):
    """What the values below one folder at the top of a store have in common.

    `is_immutable`: named by its content, and never written twice. `is_durable`: HEADs rely on it, so it has to survive
    a power cut. `is_plain`: others read it by its path, with what they have. `has_thousands`: of values at a time, so
    each request for one has to be cheap.
    """

    name: str
    is_immutable: bool = False
    is_durable: bool = False
    is_plain: bool = False
    has_thousands: bool = False


AREAS = (
    Area("packs", is_immutable=True, is_durable=True),
    Area("objects", is_immutable=True, is_durable=True),
    Area("datasets", is_durable=True),
    Area("mirror", is_plain=True, has_thousands=True),
    Area("code", has_thousands=True),
    Area("runs", has_thousands=True),
    Area("gc"),
)
_BY_NAME = {area.name: area for area in AREAS}
_ELSEWHERE = Area("")


def area_of(key: str) -> Area:
    return _BY_NAME.get(key.partition("/")[0], _ELSEWHERE)


def folder_of(key: str) -> str:
    return key.rpartition("/")[0]


# --- contents -------------------------------------------------------------------------------------------


def pack_key(pack: str) -> str:
    return f"packs/{pack[:2]}/{pack}.zip"


def object_key(content: str) -> str:
    return f"objects/{content[:2]}/{content}"


def mirror_key(dataset: str, path: str) -> str:
    return f"mirror/{dataset}" if path == ONE_FILE else f"mirror/{dataset}/{path}"


# --- datasets -------------------------------------------------------------------------------------------

LONGEST_NAME = 255
"""Bytes of a name in a folder, on every common file system."""
_PLAIN = re.compile(r"[A-Za-z0-9._+=@,() -]+")
_OURS = frozenset({"HEAD", "shards", "mirror.lease"})
_KEPT_CATEGORIES = frozenset("LMNPS")
_SHARDS = "/shards"
_LEASE = "/mirror.lease"
_MANIFEST_FILE = re.compile(r"datasets/.+/(?:[0-9a-f]{32}-|shards/)[0-9a-f]{32}\.gz")


def head_key(dataset: str) -> str:
    return head_key_in(dataset_folder(dataset))


def head_key_in(folder: str) -> str:
    """`folder` as `dataset_folder` gives it."""
    return f"{folder}/HEAD"


def is_head_key(key: str) -> bool:
    return key.startswith(DATASETS) and key.endswith("/HEAD")


def manifest_key(dataset: str, snapshot: str, file_id: str) -> str:
    """`file_id`: content id of the manifest file."""
    return f"{dataset_folder(dataset)}/{snapshot}-{file_id}.gz"


def is_manifest_key(key: str) -> bool:
    return key.startswith(DATASETS) and key.endswith(".gz") and not folder_of(key).endswith(_SHARDS)


def is_manifest_file(key: str) -> bool:
    """Whether it is a manifest or a shard of one: immutable, and checked by its name."""
    return _MANIFEST_FILE.fullmatch(key) is not None


def snapshot_of(key: str) -> str:
    """Of a manifest."""
    return key.rpartition("/")[2].partition("-")[0]


def shards_prefix(folder: str) -> str:
    return f"{folder}{_SHARDS}/"


def shard_key(folder: str, name: str) -> str:
    return f"{folder}{_SHARDS}/{name}"


def is_shard_key(key: str) -> bool:
    return folder_of(key).endswith(_SHARDS)


def lease_key(dataset: str) -> str:
    """Of a mirror: who writes its plain files."""
    return f"{dataset_folder(dataset)}{_LEASE}"


def is_lease_key(key: str) -> bool:
    return key.startswith(DATASETS) and key.endswith(_LEASE)


def dataset_of_key(key: str) -> str:
    """The dataset that a HEAD, manifest or shard belongs to."""
    return dataset_of_folder(folder_of(key).removesuffix(_SHARDS))


def dataset_folder(dataset: str) -> str:
    """Where HEAD, manifests and shards of the dataset are."""
    return "datasets/" + "/".join(map(_spelled, dataset.split("/")))


def old_folder(dataset: str) -> str:
    """Its spelling in format 1; mostly the same."""
    return "datasets/" + "/".join(part if _is_plain(part) else _escaped(part) for part in dataset.split("/"))


def folders_of(dataset: str) -> tuple[str, ...]:
    """The folder that is written to, and the one that may have been."""
    return tuple(dict.fromkeys((dataset_folder(dataset), old_folder(dataset))))


def dataset_of_folder(folder: str) -> str:
    """The dataset whose folder it is, in either spelling."""
    return unescape_path(folder.removeprefix("datasets/"))


def check_dataset_name(dataset: str) -> None:
    """Raises UsageError for a name that no folder can have; a run sees every store as a folder."""
    for part in dataset_folder(dataset).split("/")[1:]:
        if len(part.encode()) > LONGEST_NAME:
            raise UsageError(
                f"the dataset name {dataset!r} is too long: {unescape_path(part)!r} takes {len(part.encode())} bytes "
                f"in a store, and the limit is {LONGEST_NAME}",
                hint="rename the folder",
            )


def _is_plain(part: str) -> bool:
    return _PLAIN.fullmatch(part) is not None and part not in _OURS and not part.endswith((".gz", "."))


def _escaped(part: str) -> str:
    return "".join(f"%{byte:02X}" for byte in path_bytes(part))


def _spelled(part: str) -> str:
    if _is_plain(part):
        return part
    if part.isascii() and (part in _OURS or part.endswith((".gz", "."))):
        return _escaped(part)
    from unicodedata import ucd_3_2_0  # few names need the tables

    is_normal = ucd_3_2_0.normalize("NFC", part) == part

    def spelled(character: str) -> str:
        if character.isascii():
            is_kept = _PLAIN.fullmatch(character) is not None
        else:
            is_kept = is_normal and ucd_3_2_0.category(character)[0] in _KEPT_CATEGORIES
        return character if is_kept else _escaped(character)

    text = "".join(map(spelled, part))
    return f"{text[:-1]}%2E" if text.endswith(".") else f"{text[:-3]}%2Egz" if text.endswith(".gz") else text


# --- runs -----------------------------------------------------------------------------------------------
#
# The node of rank 0 writes the names that everybody reads; the other nodes of a distributed run write beside them, with
# `.rank-<N>` in the name, so that no two nodes ever write the same key. What the user's script names lies below
# `outputs/` and `outputs.rank-<N>/` alone: nothing that it may be called can meet a name of ours.


def run_prefix(run: str) -> str:
    return f"runs/{run}/"


def record_key(run: str) -> str:
    return f"runs/{run}/record.json"


def trial_key(run: str, number: int) -> str:
    """The record that a run of a sweep in Azure ML begins with, under the sweep's run."""
    return f"runs/{run}/trials/{number}.json"


def log_key(run: str, name: str) -> str:
    """The log of one process (`core.job.log_names`) with its progress bars collapsed."""
    return f"runs/{run}/logs/{name}"


def failure_key(run: str) -> str:
    """JSON {"kind", "message", "hint"}: why the runtime itself could not start the script or keep its results."""
    return f"runs/{run}/failure.json"


def script_ends_prefix(run: str) -> str:
    return f"runs/{run}/ends/"


def phases_key(run: str) -> str:
    """JSON {phase: time}: when the first node began to place data, to run the script, and to save its outputs."""
    return f"runs/{run}/phases.json"


def script_end_key(run: str, rank: int) -> str:
    """JSON {"exit_code", "ended_ns"} of a process whose script has failed by itself; `rank` counts all processes."""
    return f"{script_ends_prefix(run)}{rank}.json"


def resources_key(run: str) -> str:
    """JSON of `core.resources.Resources`: what the processes of the first node have used, once its script has ended."""
    return f"runs/{run}/resources.json"


def published_key(run: str) -> str:
    """JSON {dataset: {"snapshot", "manifest_key"}}: what the run has produced; HEAD does not name it yet."""
    return f"runs/{run}/published.json"


def outputs_prefix(run: str, rank: int = 0) -> str:
    return f"runs/{run}/outputs{_suffix(rank)}/"


def outputs_index_key(run: str, rank: int = 0) -> str:
    return f"runs/{run}/outputs{_suffix(rank)}.json"


def shared_prefix(run: str) -> str:
    """Copies that links lead to, below `<seconds since 1970 until which they hold>-<random>/`."""
    return f"runs/{run}/shared/"


def attempt_key(run: str, rank: int = 0) -> str:
    """JSON {"attempt"}: how often this node has been started for the run, from 1."""
    return f"runs/{run}/attempt{_suffix(rank)}.json"


def _suffix(rank: int) -> str:
    return f".rank-{rank}" if rank else ""


class StoredTree(NamedTuple):
    """Where a tree of files is: the prefix of its files, and the key of their list. `first_prefix` is for a list of
    format 1: further nodes of a run wrote among the outputs of the first one then."""

    prefix: str
    index_key: str
    first_prefix: str

    @property
    def owner(self) -> str:
        """The run, or the code snapshot."""
        return self.prefix.split("/")[1]

    def prefix_in(self, format_number: int) -> str:
        return self.first_prefix if format_number == 1 else self.prefix


def outputs_tree(run: str, rank: int = 0) -> StoredTree:
    first = f"runs/{run}/outputs/" + (f"rank-{rank}/" if rank else "")
    return StoredTree(outputs_prefix(run, rank), outputs_index_key(run, rank), first)


# --- code -----------------------------------------------------------------------------------------------


def code_prefix(code: str) -> str:
    return f"code/{code}/"


def code_index_key(code: str) -> str:
    return f"code/{code}.json"


def code_tree(code: str) -> StoredTree:
    return StoredTree(code_prefix(code), code_index_key(code), code_prefix(code))


def is_code_index_key(key: str) -> bool:
    return key.startswith(CODE) and key.count("/") == 1


def code_of(key: str) -> str:
    """The code snapshot that a file of it, or its index, belongs to."""
    return key[len(CODE) :].partition("/")[0].removesuffix(".json")
