"""Once a run's record is written, gc keeps what it names; before, a gc may have deleted some of it."""

from __future__ import annotations

from collections.abc import Callable

from amlctl.core.manifest import MIRROR, needs_no_bytes
from amlctl.core.run import RunRecord
from amlctl.core.store_keys import code_index_key, code_prefix
from amlctl.errors import Conflict, NotFound
from amlctl.runs.tree import read_index
from amlctl.snapshots.gc_mark import GcWatch
from amlctl.snapshots.known import ANY_SIZE, missing_values, values_named
from amlctl.snapshots.manifests import read_manifest
from amlctl.stores.contract import Store

_TRIES = 4


def ensure_run_kept(store: Store, watch: GcWatch, record: RunRecord, send_code: Callable[[], None] | None) -> None:
    """After the record was written; `watch` has noted the gc of before anything of it was looked for or sent.

    `send_code` sends what the code snapshot lacks; None where this machine does not have it. Raises Conflict.
    """
    wanted = dict.fromkeys([code_index_key(record.spec.code), *record.spec.manifests.values()], ANY_SIZE)
    for _ in range(_TRIES):
        is_quiet = watch.was_quiet()
        if not is_quiet:
            watch.wait()
        missing = missing_values(store, wanted if is_quiet else _all_values(store, record))
        if not missing:
            return
        if send_code is None or not all(key.startswith("code/") for key in missing):
            break
        send_code()
    raise Conflict("a gc has just deleted what this run needs", hint="run the same command again")


def _all_values(store: Store, record: RunRecord) -> dict[str, int]:
    index_key = code_index_key(record.spec.code)
    wanted = dict.fromkeys([index_key, *record.spec.manifests.values()], ANY_SIZE)
    for file in read_index(store, index_key) or ():
        wanted[code_prefix(record.spec.code) + file.path] = file.size_bytes
    for key in record.spec.manifests.values():
        try:
            manifest = read_manifest(store, key)
        except NotFound as error:
            raise Conflict(
                f"a gc has just deleted what this run needs: {error.message}", hint="run the same command again"
            ) from error
        folder = key.rpartition("/")[0]
        wanted.update(dict.fromkeys((f"{folder}/shards/{name}" for name in manifest.shards), ANY_SIZE))
        contents = [e.content_id for e in manifest.entries if not needs_no_bytes(e)]
        contents = [content for content in contents if manifest.places[content] != MIRROR]
        wanted.update(values_named(manifest, contents))
    return wanted
