"""Environments, compute targets, stores, checks and new projects as lines."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from amlctl.cli.render.quantities import moment, size
from amlctl.cli.render.style import Style
from amlctl.cli.render.tables import Column, fields, printable, table
from amlctl.cli.render.text.data import ID_CELLS
from amlctl.core.compute import BrokenTarget, LocalTarget
from amlctl.core.message import Command, Message
from amlctl.core.probe import ProbeResult
from amlctl.core.secret_names import masked
from amlctl.core.wording import below_data_blobs, count

if TYPE_CHECKING:
    from amlctl.core.check import Check
    from amlctl.core.compute import ComputeTarget
    from amlctl.operations.compute import ComputeView, CreateResult
    from amlctl.operations.environment import EnvironmentView
    from amlctl.operations.init import InitResult
    from amlctl.operations.store.gc import GcResult
    from amlctl.operations.store.stats import StoredDataset, StoreStats
    from amlctl.operations.store.verify import VerifyResult

MAX_SNAPSHOTS = 10
"""Older snapshots of a dataset that `store stats` lists."""
MAX_KEYS = 20
"""Dead values that `store gc` lists; `-v` and `--json` list all."""


def init_lines(result: InitResult, style: Style) -> list[str]:
    lines = [f"{style.good('created')}  {printable(path)}" for path in result.created]
    lines += [f"{style.dim('kept')}     {printable(path)}" for path in result.kept]
    if result.unignored:
        lines.append(f"Data and outputs do not belong into Git. Add to .gitignore: {' '.join(result.unignored)}")
    return [*lines, Message("Put a script into pipeline/, then: ", Command("submit", "SCRIPT"))]


def doctor_lines(checks: Sequence[Check], style: Style, width: int) -> list[str]:
    """A line for each check, and below a failed one what mends it; long ones are wrapped beside their name."""
    indent = max((len(check.name) for check in checks), default=0) + 10
    lines = []
    for check in checks:
        verdict = style.good("ok    ") if check.ok else style.bad("FAILED")
        first, *more = _wrapped(check.message, width - indent)
        lines.append(f"{verdict}  {check.name:<{indent - 10}}  {first}")
        lines += [f"{'':<{indent}}{line}" for line in more]
        if check.hint:
            lines += [f"{'':<{indent}}{line}" for line in _wrapped(f"hint: {check.hint}", width - indent)]
    return lines


def probe_lines(result: ProbeResult) -> list[str]:
    """A table in Markdown, which an issue shows as one; without color, since it is copied."""
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    rows = [
        f"| {step.name} | {'ok' if step.ok else 'FAILED'} | {step.seconds:.2f} | {_cell(step.message)} |"
        for step in result.steps
    ]
    return [printable(versions), "", "| step | result | s | what was seen |", "| --- | --- | ---: | --- |", *rows]


def _cell(text: str) -> str:
    return printable(" ".join(text.split())).replace("|", "\\|")


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(printable(text), max(width, 20), break_long_words=False, break_on_hyphens=False) or [""]


def environment_lines(view: EnvironmentView, style: Style) -> list[str]:
    spec, info = view.spec, view.info
    name = f"{style.name(printable(info.id))}  "
    unmade = Message(name, style.warning("not made yet"), ": ", Command("env", "prepare"))
    return [
        f"{name}{style.good('ready')}" if info.is_ready else unmade,
        *fields(
            [
                ("  from", spec.source),
                ("  tool", info.tool),
                ("  place", info.location),
                ("  python", spec.python),
                ("  channels", ", ".join(map(masked, spec.channels))),
                ("  conda", "\n".join(spec.conda)),
                ("  pip", "\n".join(map(masked, spec.pip))),
            ]
        ),
    ]


def target_table_lines(views: Sequence[ComputeView], width: int) -> list[str]:
    whole = [Column(heading, is_whole=True) for heading in ("NAME", "TYPE", "SIZE", "STATE")]
    columns = [*whole, Column("NOTE", is_wrapped=True)]
    rows = [[view.target.name, view.target.type, _size(view.target), view.state, view.note] for view in views]
    return table(columns, rows, width)


def _size(target: ComputeTarget | BrokenTarget) -> str:
    if isinstance(target, BrokenTarget):
        return ""
    return count(target.slots, "slot") if isinstance(target, LocalTarget) else target.size


def target_lines(view: ComputeView) -> list[str]:
    return fields([(name, _fact(value)) for name, value in view.to_json().items()])


def _fact(value: Any) -> str:
    if value is None or value == "":
        return ""
    if isinstance(value, dict):
        return "\n".join(f"{name}: {_fact(one)}" for name, one in value.items() if one is not None)
    if isinstance(value, (list, tuple)):
        return ", ".join(_fact(one) for one in value)
    return str(value)


def created_lines(result: CreateResult) -> list[str]:
    if result.is_reused:
        return [f"{result.name}  an equal target is there already and is used"]
    changes = [f"  {change.field}: {_fact(change.present)} is now {_fact(change.wanted)}" for change in result.changes]
    return [f"{result.name}  {'updated' if changes else 'created'}", *changes]


def stats_lines(stats: StoreStats, style: Style, width: int) -> list[str]:
    """Datasets at their newest snapshot, then what takes the room."""
    lines = [f"store {style.name(printable(stats.store))}", ""]
    if stats.datasets:
        columns = [
            Column("DATASET"),
            Column("SNAPSHOT", is_whole=True),
            Column("LAYOUT", is_whole=True),
            Column("FILES", is_whole=True, is_right=True),
            Column("SIZE", is_whole=True, is_right=True),
            Column("WRITTEN", is_whole=True),
        ]
        rows = [
            [d.dataset, d.snapshot[:ID_CELLS], d.layout, f"{d.files:,}", size(d.bytes), _written(d)]
            for d in stats.datasets
        ]
        lines += [*table(columns, rows, width), ""]
        for dataset in stats.datasets:
            lines += _older_lines(dataset)
    kinds = [
        Column("HOLDS", is_whole=True),
        Column("VALUES", is_right=True, is_whole=True),
        Column("SIZE", is_right=True, is_whole=True),
    ]
    rows = [[kind.kind, f"{kind.values:,}", size(kind.bytes)] for kind in stats.kinds]
    total = [
        "together",
        f"{sum(kind.values for kind in stats.kinds):,}",
        size(sum(kind.bytes for kind in stats.kinds)),
    ]
    return lines + table(kinds, [*rows, total], width)


def _written(dataset: StoredDataset) -> str:
    return next((moment(one.written_at) for one in dataset.snapshots if one.snapshot == dataset.snapshot), "")


def _older_lines(dataset: StoredDataset) -> list[str]:
    """What `sync --pull --snapshot ID` can go back to."""
    older = [one for one in dataset.snapshots if one.snapshot != dataset.snapshot]
    if not older:
        return []
    lines = [f"older snapshots of {printable(dataset.dataset)}"]
    lines += [f"  {one.snapshot[:ID_CELLS]}  {moment(one.written_at)}" for one in older[:MAX_SNAPSHOTS]]
    if len(older) > MAX_SNAPSHOTS:
        lines.append(f"  … and {len(older) - MAX_SNAPSHOTS:,} more (--json lists all)")
    return [*lines, ""]


def gc_lines(result: GcResult, *, is_verbose: bool) -> list[str]:
    if not result.keys:
        return ["nothing to delete: everything is needed, or younger than a day"]
    what = f"{count(len(result.keys), 'value')}, {size(result.bytes)}"
    if result.is_deleted:
        return [f"deleted {what}"]
    shown = result.keys if is_verbose else result.keys[:MAX_KEYS]
    lines = [f"  {printable(key)}" for key in shown]
    if len(shown) < len(result.keys):
        lines.append(f"  … and {len(result.keys) - len(shown):,} more (-v shows all)")
    return [*lines, Message(f"{what} would be deleted: ", Command("store", "gc", "--yes"))]


def verify_lines(result: VerifyResult, style: Style) -> list[str]:
    what = f"{count(result.datasets, 'dataset')}, {count(result.files, 'file')}, {size(result.bytes)}"
    unchecked = [style.dim(f"not checked, since nothing says what they should be: {', '.join(result.unchecked)}")]
    unchecked = unchecked if result.unchecked else []
    if not result.damaged:
        return [f"{style.good('undamaged')}  {what}", *unchecked]
    lines = [f"{style.bad('damaged')}  {count(len(result.damages), 'value')}; {what} in all"]
    told = [Message("  ", line) for line in result.damaged]
    hints = []
    if result.to_repair:
        repair = Command("sync", "--repair", *map(below_data_blobs, result.to_repair))
        hints = [Message("hint: ", repair, ", where a good copy is on this machine")]
    return [*lines, *told, *unchecked, *hints]
