"""A script that writes down what a run gives it."""

from __future__ import annotations

import json

from amlctl.core.events import LogText
from tests.support.bench import Bench

SHOW_ALL = """
    import json, os, pathlib, sys
    data = pathlib.Path(os.environ["AMLCTL_DATA_BLOBS_DIR"])
    found = {p.relative_to(data).as_posix(): p.read_text() for p in sorted(data.rglob("*")) if p.is_file()}
    config = None
    arguments = sys.argv[1:]
    if "--config" in arguments:
        config = json.loads(pathlib.Path(arguments[arguments.index("--config") + 1]).read_text())
    print("wrote the outputs")
    out = pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"])
    wanted = {name: os.environ.get(name) for name in ("PLAIN", "MY_TOKEN", "FROM_SHELL")}
    out.joinpath("seen.json").write_text(
        json.dumps({"data": found, "config": config, "arguments": arguments, "variables": wanted})
    )
"""


def seen(bench: Bench, run: str) -> dict[str, object]:
    document = json.loads((bench.project.outputs_dir / run / "seen.json").read_text())
    assert isinstance(document, dict)
    return document


def log_of(bench: Bench) -> str:
    return "".join(event.text for event in bench.reported(LogText))
