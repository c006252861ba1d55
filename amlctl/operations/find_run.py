"""Which run RUN names, and which workspace has it."""

from __future__ import annotations

from contextlib import suppress

from amlctl.core.events import Warned
from amlctl.core.run import RunRecord
from amlctl.core.run_id import find_run, is_record_run_id
from amlctl.core.store_keys import RUNS
from amlctl.errors import AmlctlError, IntegrityError, NotFound
from amlctl.operations.context import AnyContext, Context
from amlctl.runs.known import shared_folder
from amlctl.runs.records import local_records
from amlctl.workspaces.contract import Workspace


def located(context: AnyContext, reference: str, *, is_in_use: bool = False) -> tuple[str, AnyContext]:
    """The id that RUN names, and the context whose workspace has it; `is_in_use`: only that in use is asked.

    Also an active run of others, of whose record this machine has no copy. Raises NotFound, UsageError, what the store
    raises.
    """
    if is_in_use or len(context.settings.workspaces) == 1:
        holder, wanted = context, _listed_id(context, reference)
    else:
        holder, wanted = _with_holder(context, reference)
    try:
        return resolve_run(holder.workspace, wanted), holder
    except NotFound:
        if wanted.startswith("@"):
            raise
        return find_run(wanted, [run for run in holder.store.folders(RUNS) if is_record_run_id(run)]), holder


def resolve_run(workspace: Workspace, reference: str) -> str:
    """The id that RUN names: an id, a unique prefix, `@last`, `@2`. Raises NotFound, UsageError."""
    if not reference.startswith("@"):
        try:
            return workspace.read(reference).run  # one record, where listing reads them all
        except NotFound:
            pass
        except IntegrityError:
            return reference  # it exists; the command that uses it says what is wrong with it
    return find_run(reference, [record.run for record in workspace.list_runs()])


def _with_holder(context: AnyContext, reference: str) -> tuple[AnyContext, str]:
    """With the workspace in use that has RUN, as far as this machine has seen it, and what to look up there: the whole
    id, or RUN as it was typed. Raises UsageError."""
    in_use = context.settings.workspace().name
    recorded = {record.run: record.spec.workspace for record in restored_records(context)}
    try:
        run = find_run(reference, list(recorded))
    except NotFound:
        if reference.startswith("@"):
            return context, reference
        run = _listed_id(context, reference)
        return _with_unseen(context, run), run
    holds = recorded[run] == in_use or recorded[run] not in context.settings.workspaces
    return context if holds else context.in_workspace(recorded[run]), run


def _listed_id(context: Context, reference: str) -> str:
    """The id of a run of others that was listed here, if no run of this machine has the prefix; else RUN as it was
    typed. Raises UsageError."""
    copies = shared_folder(context.project.state_dir).glob("*.json")
    listed = [copy.stem for copy in copies if reference and copy.stem.startswith(reference)]
    if not listed or reference in listed:
        return reference
    is_own = any(record.run.startswith(reference) for record in restored_records(context))
    return reference if is_own else find_run(reference, listed)


def _with_unseen(context: AnyContext, run: str) -> AnyContext:
    """With the workspace in use that has a run which this machine has not seen; else unchanged."""
    in_use = context.settings.workspace().name
    for name in dict.fromkeys([in_use, *context.settings.workspaces]):
        found = context if name == in_use else context.in_workspace(name)
        try:
            found.workspace.read(run)
        except NotFound:
            continue
        except IntegrityError:
            pass  # it exists
        except AmlctlError as error:
            context.sink(Warned(f"could not look for run {run} in workspace {name}: {error.message}"))
            continue
        return found
    return context


def restored_records(context: Context) -> list[RunRecord]:
    """Those of this machine, newest first. Without damaged ones `@last` would be another run, so each workspace
    restores its own from its store."""
    damaged: list[str] = []
    records = local_records(context.project.state_dir, on_damaged=damaged.append)
    if not damaged:
        return records
    for name in context.settings.workspaces:
        with suppress(AmlctlError):
            workspace = context.in_workspace(name).workspace
            for run in damaged:
                with suppress(NotFound, IntegrityError):
                    workspace.read(run)
    return local_records(context.project.state_dir)
