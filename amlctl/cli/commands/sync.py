"""`amlctl sync`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from amlctl.cli.command_group import TyperApp, examples, option
from amlctl.cli.invocation import Invocation, Outcomes, each_dataset, invocation
from amlctl.cli.parameters import Paths
from amlctl.cli.questions import asking, choose
from amlctl.cli.render.tables import Cell, Line, duration, good, highlight, warning
from amlctl.core.message import ID_CELLS, Command, count, size
from amlctl.errors import NotFound, UsageError

if TYPE_CHECKING:
    from amlctl.operations.sync.sync import SyncOptions, SyncResult
    from amlctl.wiring import App

app = TyperApp()

_EXAMPLES = examples(
    "amlctl sync data_blobs/working/image # upload changes",
    "amlctl sync --dry-run working # show the changes",
    "amlctl sync --pull working/image # download changes",
    "amlctl sync --pull --snapshot 3fa2 working/image # restore a snapshot",
    "amlctl sync --adopt data/image working/image # files of a container",
    note="Exit code 5: both sides changed the same files.",
)

_CONFLICTS = "Conflicts and deletions"
_VERIFY = "Verification"
_STORE = "Store and transfer"


@app.command(epilog=_EXAMPLES)
def sync(
    ctx: typer.Context,
    paths: Annotated[list[str] | None, Paths] = None,
    is_pull: Annotated[bool, option("Download from the store instead of uploading", "--pull")] = False,
    is_dry_run: Annotated[bool, option("Show what would change, and change nothing", "--dry-run")] = False,
    snapshot: Annotated[
        str | None, option("With --pull: restore an older snapshot, by id or unique prefix", metavar="ID")
    ] = None,
    adopted: Annotated[
        str | None,
        option(
            "Make a dataset of plain files that are in the container already (a folder for a folder store)",
            "--adopt",
            metavar="PREFIX",
        ),
    ] = None,
    registered: Annotated[
        str | None,
        option("Register the dataset as a data asset of the workspace (layout: mirror)", "--register", metavar="NAME"),
    ] = None,
    ours: Annotated[bool, option("On conflict, keep the local version", "--ours", panel=_CONFLICTS)] = False,
    theirs: Annotated[bool, option("On conflict, use the store's version", "--theirs", panel=_CONFLICTS)] = False,
    force: Annotated[
        bool,
        option(
            "Replace the store's content with that of PATH, including what others have synced; asks first",
            "--force",
            panel=_CONFLICTS,
        ),
    ] = False,
    delete: Annotated[
        bool, option("Layout mirror: delete files there that were deleted here", "--delete", panel=_CONFLICTS)
    ] = False,
    yes: Annotated[bool, option("Skip the confirmation of deletions", "--yes", "-y", panel=_CONFLICTS)] = False,
    checksum: Annotated[
        bool,
        option(
            "Ignore timestamps and read every file; also finds changes that left size, times and inode as they were",
            "--checksum",
            panel=_VERIFY,
        ),
    ] = False,
    verify: Annotated[bool, option("Read back what the store has, and compare", "--verify", panel=_VERIFY)] = False,
    repair: Annotated[
        bool, option("Upload again what is damaged or missing in the store", "--repair", panel=_VERIFY)
    ] = False,
    layout: Annotated[
        str | None,
        option("Choose how the store keeps the files (default: auto)", panel=_STORE, metavar="auto|pack|mirror"),
    ] = None,
    store_url: Annotated[
        str | None, option("Use this store instead of the workspace's", "--store", panel=_STORE, metavar="URL")
    ] = None,
    jobs: Annotated[
        int | None,
        option(
            "Set the number of parallel transfers (default: depends on the store)", panel=_STORE, min=1, metavar="N"
        ),
    ] = None,
    bwlimit: Annotated[
        str | None, option("Limit the bytes per second, for example 10MiB", panel=_STORE, metavar="RATE")
    ] = None,
) -> int:
    """Upload a dataset to the store, only what changed; --pull downloads it"""
    from amlctl.core.settings import LAYOUTS
    from amlctl.operations.sync.sync import SyncOptions

    asked = _Asked(paths or [], is_pull, is_dry_run, snapshot, adopted, registered)
    flags = SyncOptions(
        checksum=checksum,
        verify=verify,
        repair=repair,
        ours=ours,
        theirs=theirs,
        force=force,
        delete=delete,
        yes=yes,
        jobs=jobs,
    )
    for message in _contradictions(asked, flags, layout):
        raise UsageError(message, hint=Command("sync", "--help"))
    if snapshot and not is_pull:
        pulled = Command("sync", "--pull", "--snapshot", snapshot, asked.paths[0])
        raise UsageError("--snapshot requires --pull", hint=pulled)
    if layout and layout not in LAYOUTS:
        raise UsageError(f"Invalid --layout {layout!r}", hint=f"use one of {', '.join(LAYOUTS)}")
    call = invocation(ctx)
    call.is_resumable = not is_dry_run
    call.output.commands.store_url = store_url
    options = replace(flags, **vars(call.app.settings.sync))
    if layout or registered:
        options = replace(options, layout=layout or "mirror")
    if registered:
        from amlctl.operations.data_asset import assets_for, register_synced  # no other sync requires a workspace

        assets = assets_for(call.app.workspace, registered)
    app_ = _with_store(call, store_url, bwlimit, jobs, is_checked=verify or repair)
    named = asked.paths or ([] if adopted is None else [_adopted_path(app_, adopted)])
    datasets = list(dict.fromkeys(app_.project.dataset_name(path, call.cwd) for path in named))
    datasets = datasets or _chosen(call, app_)
    outcomes = _sync_each(call, app_, asked, options, datasets)
    results = outcomes.results
    made = [str(register_synced(app_, assets, registered, results[0]))] if registered and results else []
    documents = [one.to_json() for one in results]
    of_several = {"datasets": documents, **outcomes.to_json(call)}
    call.result(
        {**(documents[0] if len(datasets) == 1 else of_several), **({"registered": made[0]} if made else {})},
        [
            *(line for result in results for line in _lines(result, is_pull=is_pull)),
            *(f"registered as {asset}" for asset in made),
        ],
    )
    return outcomes.show_failures(call)


class _Asked(NamedTuple):
    """What is to be done, beside how."""

    paths: list[str]
    is_pull: bool
    is_dry_run: bool
    snapshot: str | None
    adopted: str | None
    registered: str | None


def _contradictions(asked: _Asked, flags: SyncOptions, layout: str | None) -> Iterator[str]:
    pushing = [f"--{name}" for name in ("verify", "repair", "delete", "force") if getattr(flags, name)]
    named = ", ".join([*pushing, *(["--layout"] if layout else [])])
    has_many_paths = len(asked.paths) > 1
    if asked.adopted and (asked.is_pull or named or asked.registered or has_many_paths):
        yield "--adopt takes one PATH at most, no --pull"
    if not asked.paths and not asked.is_pull and not asked.adopted:
        yield "Missing argument 'PATH...'"
    if not asked.paths and asked.snapshot:
        yield "--snapshot requires a PATH"
    if flags.ours and flags.theirs:
        yield "--ours and --theirs exclude each other"
    if flags.force and flags.prefer:
        yield "--force excludes --ours and --theirs"
    if asked.is_pull and named:
        yield f"{named} and --pull exclude each other"
    if asked.registered and (asked.is_pull or asked.is_dry_run or has_many_paths):
        yield "--register requires a single PATH, without --pull and --dry-run"


def _adopted_path(app_: App, prefix: str) -> str:
    from amlctl.operations.sync.adopt import adopted_name

    return str(app_.project.data_blobs_dir / adopted_name(prefix))


def _sync_each(
    call: Invocation, app_: App, asked: _Asked, options: SyncOptions, datasets: list[str]
) -> Outcomes[SyncResult]:
    from amlctl.operations.sync.sync import dry_run
    from amlctl.operations.sync.sync import sync as sync_operation

    def try_once(dataset: str, is_sure: bool) -> SyncResult:
        chosen = replace(options, yes=is_sure)
        if asked.adopted is not None:
            from amlctl.operations.sync.adopt import adopt

            return adopt(app_, app_.plain_files(asked.adopted), dataset, chosen, is_dry_run=asked.is_dry_run)
        if asked.is_pull:
            from amlctl.operations.sync.pull import pull as pull_operation

            return pull_operation(app_, dataset, chosen, snapshot=asked.snapshot, is_dry_run=asked.is_dry_run)
        return (dry_run if asked.is_dry_run else sync_operation)(app_, dataset, chosen)

    return each_dataset(
        datasets,
        lambda dataset: asking(partial(try_once, dataset), is_sure=options.yes, output=call.output),
    )


def _chosen(call: Invocation, app_: App) -> list[str]:
    """Of the store's datasets. Raises UsageError without a terminal."""
    from amlctl.operations.status import all_stored

    names = all_stored(app_).datasets
    if not names:
        raise NotFound(f"the store {app_.store.url} has no datasets yet", hint=Command("sync", "PATH"))
    if call.output.can_ask:
        call.pause()
        return choose("The store has these datasets. Download which?", names, call.output)
    raise UsageError("Missing argument 'PATH...'", hint=Command("sync", "--pull", names[0]), details=names)


def _with_store(
    call: Invocation, url: str | None, bwlimit: str | None, workers: int | None, *, is_checked: bool
) -> App:
    from amlctl.config.settings import parse_size
    from amlctl.stores.wrappers import without_copies

    bytes_per_s = None if bwlimit is None else parse_size(bwlimit.removesuffix("/s"))
    if bytes_per_s is not None and bytes_per_s <= 0:
        raise UsageError(f"Invalid --bwlimit {bwlimit!r}: must be above 0", hint="for example --bwlimit 10MiB")
    url = call.app.store_url if url is None else url
    store = call.app.open_store(url, workers=workers, bytes_per_s=bytes_per_s)
    return call.app.with_store(without_copies(store) if is_checked else store)


def _lines(result: SyncResult, *, is_pull: bool) -> Iterator[Line]:
    """A line for the dataset, then what changed and what was transferred, if anything."""
    counts = (("added", result.added), ("modified", result.modified), ("deleted", result.deleted))
    changes = ", ".join(f"{number:,} {word}" for word, number in counts if number)
    if result.not_here:
        state: Cell = warning(f"{count(result.not_here, 'file')} in the store not downloaded yet")
    elif not changes:
        state = good("up to date")
    else:
        state = warning("would change") if result.dry_run else good("pulled" if is_pull else "synced")
    snapshot = f"  snapshot {result.snapshot[:ID_CELLS]}" if result.snapshot else ""  # what is to be adopted has none
    total = f"  {count(result.files, 'file')}, {size(result.bytes)}{snapshot}"
    yield [highlight(result.dataset), "  ", state, total]
    if changes:
        yield f"  {changes}, {result.unchanged:,} unchanged"
    if transferred := _transferred(result):
        yield f"  {transferred}"


def _transferred(result: SyncResult) -> str:
    would = "would be " if result.dry_run else ""
    parts = []
    if result.uploaded_bytes:
        blobs = f" in {count(result.uploaded_blobs, 'blob')}" if result.uploaded_blobs else ""
        parts.append(f"{size(result.uploaded_bytes)} {would}sent{blobs}")
    if result.downloaded_files:
        parts.append(f"{count(result.downloaded_files, 'file')} ({size(result.downloaded_bytes)}) {would}received")
    took = f" in {duration(result.seconds)}" if parts and not result.dry_run else ""
    return ", ".join(parts) + took
