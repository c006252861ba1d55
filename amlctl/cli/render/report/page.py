"""The report as one HTML page: nothing is loaded, and a script that is not ours would not run."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from amlctl import __version__
from amlctl.cli.render.compared import changed_paths, compared_lines
from amlctl.cli.render.plot import Curve
from amlctl.cli.render.report.drawing import Markup, color_of, joined, markup, plot, resource_plots, time_line
from amlctl.cli.render.run_text import resources_text, value_text
from amlctl.cli.render.tables import duration, moment
from amlctl.core.message import Command, below_data_blobs, size
from amlctl.core.metrics import as_json, shown
from amlctl.core.phases import Span, timeline
from amlctl.operations.report import MOST_SERIES, Report, RunPage

_STATES = {"Completed": "good", "Failed": "bad", "Canceled": "warn"}


def page(report: Report, now: datetime) -> str:
    """The whole document."""
    style, script = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    )
    runs = report.runs
    title = runs[0].record.run if len(runs) == 1 else f"{len(runs)} runs"
    spans = [timeline(run.record, now) for run in runs]
    return markup(
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="{}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><title>{}</title><style>{}</style></head>\n'
        "<body><main>{}</main><footer>{}</footer><script>{}</script></body></html>\n",
        policy,
        title,
        Markup(style),
        joined(
            [
                markup("<h1>{}</h1>", title),
                _overview(runs, spans),
                *_plots(runs),
                *resource_plots(runs),
                *_comparison(report),
                *(part for run in runs for part in _run(run, is_single=len(runs) == 1)),
            ]
        ),
        f"amlctl {__version__}, {now.astimezone():%Y-%m-%d %H:%M:%S %Z}",
        Markup(script),
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _overview(runs: Sequence[RunPage], spans: Sequence[Sequence[Span]]) -> Markup:
    """Each run with its state, and its phases on one scale."""
    longest_s = max([sum(span.seconds for span in each) for each in spans] + [0.001])
    return joined(
        markup(
            '<section class="run"><p>{}<span class="state {}">{}</span> {}</p>{}{}'
            '<p class="phases">{}</p><p class="phases">{}</p></section>',
            _name(number, run.record.run) if len(runs) > 1 else Markup(),
            _STATES.get(run.record.status, ""),
            run.record.status,
            _subject(run),
            _failure(run),
            time_line(each, longest_s) if each else Markup(),
            _phases(each),
            resources_text(run.record),
        )
        for number, (run, each) in enumerate(zip(runs, spans, strict=True))
    )


def _name(number: int, run: str) -> Markup:
    """A run with its color in plots."""
    return markup('<span class="chip {}"></span><strong>{}</strong> ', color_of(number), run)


def _subject(run: RunPage) -> str:
    record = run.record
    parts = [
        record.spec.script or record.spec.name,
        f"{record.spec.workspace} / {record.spec.compute}",
        record.made_by,
        moment(record.created_at),
    ]
    return " · ".join(part for part in parts if part)


def _failure(run: RunPage) -> Markup:
    error = run.record.error or {}
    return markup('<p class="error">{}</p>', run.record.to_json()["error"]["message"]) if error else Markup()


def _phases(spans: Sequence[Span]) -> Markup:
    return joined(
        markup(
            '<span class="key"><span class="chip p-{}"></span>{} {}{}</span> ',
            span.name,
            span.name,
            duration(span.seconds),
            f" ({span.note})" if span.note else "",
        )
        for span in spans
    )


def _plots(runs: Sequence[RunPage]) -> Iterator[Markup]:
    names = list(dict.fromkeys(name for run in runs for name in run.series))
    if not names:
        return
    plots = [
        markup(
            "<figure><figcaption>{}</figcaption>{}</figure>",
            name,
            plot(name, [Curve(run.record.run, run.series.get(name, ())) for run in runs]),
        )
        for name in names[:MOST_SERIES]
    ]
    yield markup('<h2>Metrics over steps</h2><section class="plots">{}</section>', joined(plots))


def _comparison(report: Report) -> Iterator[Markup]:
    if report.comparison is None:
        return
    comparison = report.comparison
    heads = joined(
        markup('<th scope="col"><span class="chip {}"></span>{}</th>', color_of(number), run)
        for number, run in enumerate(comparison.runs)
    )
    rows = []
    for section, lines in groupby(compared_lines(comparison), key=lambda line: line.section):
        rows.append(markup('<tr class="head"><th colspan="{}">{}</th></tr>', len(comparison.runs) + 1, section))
        for line in lines:
            cells = joined(markup("<td{}>{}</td>", _class_of(cell.style), cell.text) for cell in line.cells)
            rows.append(markup('<tr><th scope="row">{}</th>{}</tr>', line.field, cells))
    yield markup(
        '<h2>What differs</h2><div class="wide"><table><thead><tr><td></td>{}</tr></thead>'
        "<tbody>{}</tbody></table></div>",
        heads,
        joined(rows),
    )
    for title, signs in changed_paths(comparison, comparison.runs):
        yield _details(f"What changed in the {title}", _text_block("\n".join(f"{sign} {path}" for sign, path in signs)))


def _class_of(style: str) -> Markup:
    return Markup({"green": ' class="good"', "bold red": ' class="bad"'}.get(style, ""))


def _run(run: RunPage, *, is_single: bool) -> Iterator[Markup]:
    level = 2 if is_single else 3

    def heading(text: str) -> Markup:
        return markup("<h{}>{}</h{}>", level, text, level)

    if not is_single:
        yield markup('<h2 id="{}">{}</h2>', run.record.run, run.record.run)
    if run.metrics.last:
        yield heading("Metrics")
        yield _table((name, shown(as_json(value))) for name, value in run.metrics.last.items())
    if run.pictures:
        yield heading("Pictures")
        yield markup('<section class="pictures">{}</section>', joined(map(_picture, run.pictures)))
    yield heading("Settings")
    if run.config:
        yield _table((name, value_text(value)) for name, value in run.config.items())
    yield _details("Everything recorded", _table(_facts(run)))
    if run.record.spec.environment_content:
        content = run.record.to_json()["environment_content"]
        yield _details("Environment file", _text_block(content))
    if run.files:
        yield _details("Outputs", _table((file.path, size(file.size_bytes)) for file in run.files))
    for note in run.notes:
        yield markup('<p class="note">{}</p>', note)
    if run.log:
        yield heading("Log")
        yield _log(run)
    yield heading("Run it again")
    yield _text_block("\n".join(_again(run)))


def _table(rows: Iterable[tuple[str, str]]) -> Markup:
    return markup(
        '<div class="wide"><table><tbody>{}</tbody></table></div>',
        joined(markup('<tr><th scope="row">{}</th><td>{}</td></tr>', name, value) for name, value in rows),
    )


def _details(title: str, content: Markup) -> Markup:
    return markup("<details><summary>{}</summary>{}</details>", title, content)


def _text_block(text: str) -> Markup:
    return markup("<pre>{}</pre>", text)


def _picture(picture: Any) -> Markup:
    return markup(
        '<figure><img alt="{}" src="data:{};base64,{}"><figcaption>{}</figcaption></figure>',
        picture.path,
        picture.media_type,
        base64.b64encode(picture.data).decode(),
        picture.path,
    )


_LEFT_OUT = {
    "config_content",
    "config_file",
    "environment_content",
    "metrics",
    "phases",
    "resources",
    "error",
    "run",
    "status",
}
"""Of a record: shown elsewhere, or too long."""


def _facts(run: RunPage) -> Iterator[tuple[str, str]]:
    for name, value in run.record.to_json().items():
        if name in _LEFT_OUT or value in (None, "", [], {}, ()):
            continue
        if isinstance(value, Mapping):
            for key, one in value.items():
                yield f"{name}.{key}", "(secret)" if one is None else _text(one)
        else:
            yield name, shlex.join(value) if name in ("command_line", "arguments") else _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _log(run: RunPage) -> Markup:
    lines = joined(markup("<span>{}\n</span>", line) for line in run.log)
    earlier = f"the last {len(run.log):,} lines; earlier ones: {Command('logs', run.record.run)}"
    return markup(
        '<div class="log"><p class="search"><input type="search" placeholder="Search the log" '
        'aria-label="Search the log"> <output></output></p>{}<pre tabindex="0">{}</pre></div>',
        markup('<p class="note">{}</p>', earlier) if run.has_earlier_lines else Markup(),
        lines,
    )


def _again(run: RunPage) -> Iterator[str]:
    record, spec = run.record, run.record.spec
    yield "# the same code, data, config and environment"
    yield str(Command("submit", "--from", record.run))
    if record.command_line:
        yield "# as it was typed"
        yield shlex.join(record.to_json()["command_line"])
    if spec.git and spec.git.get("commit"):
        yield "# the commit"
        yield f"git checkout {shlex.quote(str(spec.git['commit']))}"
    if spec.datasets:
        yield "# its data"
    for dataset, snapshot in spec.datasets.items():
        yield str(Command("sync", "--pull", "--snapshot", snapshot, below_data_blobs(dataset)))
    yield "# its outputs and its log"
    yield str(Command("fetch", record.run, "--logs"))
