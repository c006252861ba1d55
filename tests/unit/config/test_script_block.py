from __future__ import annotations

import pytest

from amlctl.config.script_config import read_script_block
from amlctl.errors import SettingsError

HEAD = '"""A script."""\nimport json\n\n'


def block(*lines: str) -> str:
    return HEAD + "\n".join(["# /// script", *(f"# {line}".rstrip() for line in lines), "# ///", "", "print(1)\n"])


def test_needs_are_read_from_the_block() -> None:
    source = block(
        'requires-python = ">=3.11"', "", "[tool.amlctl]", 'datasets = ["raw/a b", "working/é"]', 'compute = "gpu"'
    )
    found = read_script_block(source, "x.py")
    assert found.values == {"datasets": ["raw/a b", "working/é"], "compute": "gpu"}
    assert found.lines == {"datasets": "x.py:8", "compute": "x.py:9"}
    assert read_script_block(source.replace("\n", "\r\n"), "x.py") == found


@pytest.mark.parametrize(
    "source", ["", "print(1)\n", block('dependencies = ["numpy"]'), "# /// other\n# [tool.amlctl]\n# x = 1\n# ///\n"]
)
def test_a_script_may_say_nothing(source: str) -> None:
    assert read_script_block(source, "x.py").values == {}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (block("[tool.amlctl]", 'dataset = ["raw/a"]'), ["x.py:6", "'dataset'", "datasets?"]),
        (block("[tool.amlctl]", "", 'datasets = "raw/a"'), ["x.py:7", "list"]),
        (block('datasets = ["raw/a"]'), ["x.py:5", "'datasets'", "[tool.amlctl]"]),
        (block("[amlctl]", 'datasets = ["raw/a"]'), ["x.py:5", "'amlctl'", "[tool.amlctl]"]),
        (block("[tool.amlctl]", "compute = 3"), ["x.py:6", "compute"]),
        (block("[tool.amlctl]", "datasets = [oops]"), ["x.py:6:15"]),
        (block("[tool.amlctl]", "datasets = ["), ["x.py:6"]),
        (HEAD + "# /// script\n# [tool.amlctl]\nprint(1)\n", ["x.py:4", "not closed"]),
        (block("x = 1") + "\n" + block("x = 1"), ["second"]),
    ],
)
def test_a_broken_block_names_file_and_line(source: str, words: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        read_script_block(source, "x.py")
    for word in words:
        assert word in caught.value.message + caught.value.hint
