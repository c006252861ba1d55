from __future__ import annotations

from amlctl.operations.why import why
from tests.support.bench import Bench


def test_the_projects_own_ignore_file_decides_on_code_too(bench: Bench) -> None:
    bench.write(".gitignore", "*.log\n*.ckpt\n")
    bench.write("pipeline/sub/.amlctlignore", "!kept.ckpt\n")
    lost = bench.write("pipeline/sub/lost.ckpt")
    kept = bench.write("pipeline/sub/kept.ckpt")
    found = why(bench, lost)
    assert (found.is_ignored, found.rule, found.rule_file, found.rule_line) == (True, "*.ckpt", ".gitignore", 2)
    assert not why(bench, kept).is_ignored
