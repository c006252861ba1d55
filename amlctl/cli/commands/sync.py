"""`amlctl sync`."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from amlctl.cli.completion import complete_dataset
from amlctl.cli.invocation import Invocation, invocation
from amlctl.cli.questions import is_confirmed
from amlctl.cli.render.text import data
from amlctl.cli.several import each_dataset
from amlctl.config.settings import parse_size
from amlctl.core.message import Command, Message
from amlctl.core.settings import LAYOUTS
from amlctl.errors import NeedsConfirmation, UsageError
from amlctl.operations.sync.sync import SyncOptions, SyncResult, dry_run
from amlctl.operations.sync.sync import sync as sync_operation
from amlctl.wiring import App, without_copies

app = typer.Typer(add_completion=False)

_EXAMPLES = """\
Examples:

  amlctl sync data_blobs/working/image         send what changed
  amlctl sync --dry-run data_blobs/working     what would be sent
  amlctl sync --pull data_blobs/working/image  bring here what the store has
  amlctl sync --pull --snapshot 3fa2 data_blobs/working/image

PATH may also be a dataset's name (working/image). Exit code 5: both sides changed the same files.
"""


@app.command(epilog=_EXAMPLES)
def sync(
    ctx: typer.Context,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", autocompletion=complete_dataset, help="Files or folders under data_blobs/."),
    ],
    is_pull: Annotated[bool, typer.Option("--pull", help="The other way: from the store to this machine.")] = False,
    is_dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")] = False,
    layout: Annotated[
        str | None, typer.Option(metavar="auto|pack|mirror", help="How the store keeps the files. Default: auto.")
    ] = None,
    snapshot: Annotated[
        str | None, typer.Option(metavar="ID", help="With --pull: an older snapshot, by id or its beginning.")
    ] = None,
    checksum: Annotated[
        bool,
        typer.Option(
            "--checksum",
            help="Ignore timestamps and read every file: finds a change that left size, mtime, ctime and inode as they "
            "were, for example through a memory map on a network file system.",
        ),
    ] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Read back what the store has, and compare.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Send again what is damaged or missing in the store.")
    ] = False,
    ours: Annotated[bool, typer.Option("--ours", help="On conflict, keep the local version of that file.")] = False,
    theirs: Annotated[
        bool, typer.Option("--theirs", help="On conflict, take the store's version of that file.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Make the store hold exactly what PATH holds, without what others have synced; asks first."
        ),
    ] = False,
    delete: Annotated[
        bool, typer.Option("--delete", help="Layout mirror: also remove there what is gone here.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Confirm deletions without being asked.")] = False,
    registered: Annotated[
        str | None,
        typer.Option(
            "--register", metavar="NAME", help="Register the dataset as a data asset of the workspace (layout: mirror)."
        ),
    ] = None,
    store_url: Annotated[
        str | None, typer.Option("--store", metavar="URL", help="Another store than the workspace's.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Files and parts of files that travel at a time. Default: what suits the store."
        ),
    ] = None,
    bwlimit: Annotated[
        str | None, typer.Option(metavar="RATE", help="Bytes a second at most, for example 10MiB.")
    ] = None,
) -> int:
    """Make the store hold exactly what PATH holds now; only what changed travels."""
    if ours and theirs:
        raise UsageError("--ours and --theirs exclude each other", hint=Command("sync", "--help"))
    if force and (ours or theirs):
        hint = Command("sync", "--help")
        raise UsageError("--force decides everything: leave --ours and --theirs out", hint=hint)
    if snapshot is not None and not snapshot:
        raise UsageError("--snapshot is empty", hint=Message(Command("store", "stats"), " lists the snapshots"))
    if snapshot is not None and not is_pull:
        raise UsageError(
            "--snapshot goes with --pull", hint=Command("sync", "--pull", "--snapshot", snapshot, paths[0])
        )
    if layout is not None and layout not in LAYOUTS:
        raise UsageError(f"--layout {layout!r} is unknown", hint=f"one of {', '.join(LAYOUTS)}")
    if is_pull:
        pushing = {"--verify": verify, "--repair": repair, "--delete": delete, "--layout": layout is not None}
        pushing["--force"] = force
        if named := [name for name, is_given in pushing.items() if is_given]:
            raise UsageError(f"{', '.join(named)} and --pull exclude each other", hint=Command("sync", "--help"))
    call = invocation(ctx)
    if registered is not None:
        from amlctl.operations.register import MIRROR, registration  # here: no other sync needs a workspace

    if registered is not None and (is_pull or is_dry_run or len(paths) > 1):
        raise UsageError(
            "--register goes with one PATH, and without --pull and --dry-run", hint=Command("sync", "--help")
        )
    register = None if registered is None else registration(call.app.workspace, registered)
    layout = layout or (None if register is None else MIRROR)
    call.output.commands.store_url = store_url
    settings = call.app.settings.sync
    options = SyncOptions(
        layout=layout or settings.layout,
        pack_below=settings.pack_below,
        pack_size=settings.pack_size,
        ignore=tuple(settings.ignore),
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
    app_ = _with_store(call, store_url, bwlimit, jobs, is_checked=verify or repair)
    project = app_.project
    datasets = list(dict.fromkeys(project.dataset_name(path, call.cwd) for path in paths))

    def try_once(dataset: str, options: SyncOptions) -> SyncResult:
        if is_pull:
            from amlctl.operations.sync.pull import pull as pull_operation

            return pull_operation(app_, dataset, options, snapshot=snapshot, is_dry_run=is_dry_run)
        return (dry_run if is_dry_run else sync_operation)(app_, dataset, options)

    def act(dataset: str) -> SyncResult:
        try:
            return try_once(dataset, options)
        except NeedsConfirmation as error:
            if not is_confirmed(error, call.output):
                raise
        return try_once(dataset, replace(options, yes=True))

    tried = each_dataset(datasets, act)
    results = tried.results
    more = {}
    if register is not None and results:
        done, is_file = results[0], (project.data_blobs_dir / results[0].dataset).is_file()
        more["registered"] = str(register(app_.store.url, done.dataset, done.snapshot, done.layout, is_file=is_file))
    call.result(
        {**results[0].to_json(), **more}
        if len(paths) == 1
        else {"datasets": [one.to_json() for one in results], **tried.to_json(call)},
        lambda style, width: [
            *(line for result in results for line in data.sync_lines(result, style, is_pull=is_pull)),
            *(f"registered as {asset}" for asset in more.values()),
        ],
    )
    return tried.tell_failures(call)


def _with_store(
    call: Invocation, url: str | None, bwlimit: str | None, workers: int | None, *, is_checked: bool
) -> App:
    bytes_per_s = None if bwlimit is None else parse_size(bwlimit.removesuffix("/s"))
    if bytes_per_s is not None and bytes_per_s <= 0:
        raise UsageError(f"--bwlimit {bwlimit!r} lets nothing through", hint="for example --bwlimit 10MiB")
    url = call.app.store_url if url is None else url
    store = call.app.open_store(url, workers=workers, bytes_per_s=bytes_per_s)
    return call.app.with_store(without_copies(store) if is_checked else store)
