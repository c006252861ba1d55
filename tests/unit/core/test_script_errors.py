"""What the end of a log says, and paths in tracebacks, however the log is cut."""

from __future__ import annotations

import pytest

from amlctl.core.log_text import CodePaths, Explained, explained

TRACEBACK = """Traceback (most recent call last):
  File "/p/.amlctl/local/r-1/container/pipeline/a/train.py", line 4, in <module>
    main()
  File "/usr/lib/python3.11/json/__init__.py", line 3, in loads
    return x
ValueError: bad input
"""


@pytest.mark.parametrize(
    ("line", "module"),
    [
        ("ModuleNotFoundError: No module named 'torch_geometric'", "torch_geometric"),
        ("ModuleNotFoundError: No module named 'numpy.foo'", "numpy.foo"),
        ("KeyError: 'x'", ""),
        ("torch.cuda.OutOfMemoryError: CUDA out of memory.", ""),
    ],
)
def test_the_last_exception_is_the_reason(line: str, module: str) -> None:
    assert explained(["ValueError: an earlier one", line, "", "[amlctl] ended 1 process"]) == Explained(line, module)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["ValueError: first", "", "During handling of the above …:", *TRACEBACK.splitlines()[:2]], "queue.Empty"),
        (["KeyError: 'first'", TRACEBACK.splitlines()[0], "    raise Stop from error"], "__main__.Stop: two"),
        (["usage: train.py [-h]"], "train.py: error: unrecognized arguments: --bad"),
    ],
)
def test_an_exception_of_any_name_and_a_refused_argument_are_reasons(lines: list[str], reason: str) -> None:
    assert explained([*lines, reason, "lines", "[amlctl] ended 1 process"]) == Explained(reason)


def test_the_last_words_of_click_are_a_reason() -> None:
    said = "Error: Missing argument 'WHAT'."
    assert explained(["Usage: train.py [OPTIONS] WHAT", "", said]) == Explained(said)
    assert explained(["Error: retrying", "done"]) == Explained()


def test_a_log_without_an_exception_says_nothing() -> None:
    assert explained(["epoch 1", "loss: 0.1", "Note: done"]) == Explained()


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_paths_lead_to_the_code_here(size: int) -> None:
    def find(path: str, below: str) -> str:
        assert path == f"/p/.amlctl/local/r-1/container/pipeline/{below}"
        return f"pipeline/{below}"

    paths = CodePaths(find)
    pieces = [paths.feed(TRACEBACK[at : at + size]) for at in range(0, len(TRACEBACK), size)]
    shown = "".join([*pieces, paths.feed("", is_final=True)])
    assert shown == TRACEBACK.replace("/p/.amlctl/local/r-1/container/", "")


def test_other_text_is_not_held_back() -> None:
    paths = CodePaths(lambda path, below: "")
    assert (
        paths.feed('File "/x/pipeline/a.py", line 1\nprogress 10%') == 'File "/x/pipeline/a.py", line 1\nprogress 10%'
    )
    assert paths.feed('\nFile "/unfinished') == "\n"
    assert paths.feed("", is_final=True) == 'File "/unfinished'
