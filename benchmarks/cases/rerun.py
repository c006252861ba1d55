"""The same script once more on this machine: how long until its first line."""

from __future__ import annotations

from data import TreeShape, write_tree
from measure import CommandFailed, interleaved
from result import Goal, Result, rows_of
from sandbox import Sandbox, remover

SHAPE = TreeShape(files=20_000, folders=40, smallest=2_000, largest=40_000, seed=3)
_SCRIPT = 'print("first line", flush=True)\n'


def measure(sandbox: Sandbox) -> Result:
    shape = SHAPE.scaled(sandbox.scale)
    project = sandbox.new_project("rerun")
    size_bytes = write_tree(project / "data_blobs" / "working" / "many", shape)
    (project / "pipeline").mkdir(exist_ok=True)
    (project / "pipeline" / "hello.py").write_text(_SCRIPT)
    plain = ["submit", "hello.py", "--env-from", "current", "--no-fetch"]
    with_data = [*plain, "--dataset", "working/many"]
    again = sandbox.amlctl("again", with_data, project)
    first = sandbox.amlctl("data unpacked", with_data, project, prepare=remover(project / ".amlctl" / "data"))
    without = sandbox.amlctl("without data", plain, project)
    if sandbox.answer_of(again)["status"] != "Completed":
        raise CommandFailed("the run did not complete")
    commands = [again, first, without]
    rows = rows_of(commands, interleaved(commands, sandbox.repetitions, sandbox.tell))
    medians = [row.samples.median_s for row in rows if row.samples is not None]
    return Result(
        "rerun",
        f"a script of one line on {shape.files:,} files ({size_bytes / 1e6:.0f} MB), from the command to its end; "
        "`data unpacked` is what each run did before copies went from run to run",
        rows,
        [Goal("at most 1 s longer than without data", medians[0] - medians[2], 1.0, "s")],
    )
