"""A config travels byte for byte; only what no reader of its format can read is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from amlctl.config.script_config import MAX_BYTES, config_values, read_config, record_config
from amlctl.core.run import RunRecord, config_bytes
from amlctl.errors import SettingsError, UsageError
from tests.support.runs import run_record

BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "\n".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9))

CARRIED = [
    ("c.json", b'{"a": 1}'),
    ("c.json", b'{"a": 1, "a": 2}\n'),
    ("c.json", b"\xef\xbb\xbf{}\r\n"),
    ("c.json", b'{"a": 1.0, "b": 1e5, "c": NaN, "d": 1e999}'),
    ("c.json", b"// why\n{a: 'x', \"b\": [1, 2,], }\n"),
    ("c.json", b'{"a": 1}\n{"a": 2}\n'),
    ("c.json", b'{"a": "\\ud800"}'),
    ("c.json", b'"only text"'),
    ("c.json", b"[" * 5000 + b"]" * 5000),
    ("c.json", b'{"a": ' + b"9" * 5000 + b"}"),
    ("c.json", b'{"a": {{ rate }}, {% if x %} "b": 1 {% endif %} }'),
    ("c.json", '{"ä": 1}'.encode("utf-16")),
    ("c.json", b'{"\xe4": 1}'),
    ("c.JSON", b"{}"),
    ("c.yaml", b"a: 1\r\nb: 'x'\r\n"),
    ("c.yaml", b"betas: !!python/tuple [0.9, 0.999]\n"),
    ("c.yaml", b"base: !include other.yaml\nx: !!timestamp nonsense\n"),
    ("c.yaml", b"a: 1\n---\nb: 2\n"),
    ("c.yaml", b"a: 1\na: 2\n? [x]\n: 1\n"),
    ("c.yaml", b"a: &a [*a]\n"),
    ("c.yaml", BOMB.encode()),
    ("c.yaml", ("a: " + "[" * 3000 + "]" * 3000).encode()),
    ("c.yaml", b"a: " + b"9" * 5000),
    ("c.yaml", b"{% for x in y %}\na: {{ x }}\n{% endfor %}\n"),
    ("c.yaml", b"%TAG ! tag:example.org,2026:\n---\na: !x 1\n"),
    ("c.yaml", "name: Größe\n".encode("latin-1")),
    ("c.yaml", "\ufeffa: ü\n".encode("utf-16-be")),
    ("c.yaml", b""),
    ("c.yaml", b"no newline: at the end"),
    ("c.yml", b"when: 2024-02-29\n"),
    ("c.py", b"lr = 1e-3\nmodel = dict(type='x')\n"),
    ("c.jsonnet", b"local x = 1; { a: x }\n"),
    ("c.toml", b"a = [\n"),
    ("c", b"\x00\x01\xff"),
    ("c.json.txt", b"{"),
]


def record_of(data: bytes, name: str, *overrides: str) -> RunRecord:
    found = record_config(data, name, overrides, lambda key, new, old: new)
    record = RunRecord("r", found)
    return RunRecord.from_json(json.loads(json.dumps(record.to_json(), indent=2).encode()))


@pytest.mark.parametrize(("name", "data"), CARRIED)
def test_it_travels_byte_for_byte(name: str, data: bytes) -> None:
    record = record_of(data, name)
    assert config_bytes(record.spec, {}) == data
    assert config_bytes(record.spec, None) == data
    shown = json.dumps(config_values(record.spec))
    assert len(shown) < 20_000


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("c.json", b'{"a": 1,\n "b": }', "c.json:2:7"),
        ("c.json", b'{"a": 1,\n "b": 2', "c.json:2:8"),
        ("c.json", b"", "c.json:1:1"),
        ("c.yaml", b"a: 1\nb: [", "c.yaml:2"),
        ("c.yaml", b"a: 1\n\tb: 2\n", "c.yaml:2"),
        ("c.yaml", b"a: \x00\n", "c.yaml:1"),
        ("c.yaml", b"a: 1\nwhen: 2026-13-45\n", "c.yaml:2:7: 2026-13-45 is not a date"),
        ("c.yaml", b"- 2023-02-29\n", "c.yaml:1:3"),
        ("c.yaml", b"- 2023-02-28 25:00:00\n", "c.yaml:1:3"),
    ],
)
def test_what_no_reader_can_read_is_refused_with_its_line(name: str, data: bytes, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        record_of(data, name)
    assert words in caught.value.message


def test_a_config_that_is_neither_json_nor_yaml_cannot_be_changed() -> None:
    with pytest.raises(UsageError, match=r"c\.toml is neither JSON nor YAML, so --set cannot change it"):
        record_config(b"a = 1\n", "c.toml", ["a=2"], lambda key, new, old: new)
    recorded = record_config(b'{"a": 1}', "c.conf", ["a=2"], lambda key, new, old: new)
    assert recorded.config_content == '{"a": 2}'


@pytest.mark.parametrize(
    ("name", "data", "content"),
    [
        ("c.json", b'{"a": [1, 2.5, null, "x"]}', {"a": [1, 2.5, None, "x"]}),
        ("c.json", b'{"a": 1, "a": 2}', {"a": 2}),
        ("c.json", b"// why\n{'a': 1}", {"a": 1}),
        ("c.json", b'{"a": NaN}', '{"a": NaN}'),
        ("c.yaml", b"a: 1  # one\nb: [x, .5]\n", {"a": 1, "b": ["x", 0.5]}),
        ("c.yaml", b"a: .inf\n", "a: .inf\n"),
        ("c.yaml", b"just text\n", "just text\n"),
        ("c.yaml", b"\xff", None),
    ],
)
def test_the_record_says_what_was_in_it(name: str, data: bytes, content: Any) -> None:
    assert record_of(data, name).spec.config_content == content


@pytest.mark.parametrize(
    ("name", "data", "values"),
    [
        ("c.json", b'// x\n{"a": 1, "b": {"c": [1]}}', {"a": 1, "b": {"c": [1]}}),
        ("c.json", b"{a: -0x1F, b: +0X1f, c: -Infinity, d: +.5}", {"a": -31, "b": 31, "c": -math.inf, "d": 0.5}),
        (
            "c.yaml",
            b"b: &b {x: 1, y: 2}\na:\n  <<: *b\n  y: 3\nt: !!python/tuple [1]\n1: 1e-5\n",
            {
                "b": {"x": 1, "y": 2},
                "a": {"x": 1, "y": 3},
                "t": [1],
                "1": 1e-5,
            },
        ),
        ("c.yaml", "a: 1\n".encode("utf-16"), {"a": 1}),
    ],
)
def test_its_values_are_shown(name: str, data: bytes, values: Any) -> None:
    assert config_values(record_of(data, name).spec) == values


@pytest.mark.parametrize("data", [BOMB.encode(), b"a: 1\n---\nb: 1\n", b"\xff\xfe", b"a: &a [*a]"])
def test_what_cannot_be_shown_is_reported_by_its_size(data: bytes) -> None:
    assert "bytes, hash" in config_values(record_of(data, "c.yaml").spec)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-8-sig"])
def test_a_change_keeps_the_encoding(encoding: str) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    data = f"{mark}name: Größe\r\nlr: 1\r\n".encode(encoding)
    changed = config_bytes(record_of(data, "c.yaml", "lr=2").spec, {})
    assert changed == f"{mark}name: Größe\r\nlr: 2\r\n".encode(encoding)


def test_a_text_of_unknown_encoding_cannot_be_changed() -> None:
    with pytest.raises(SettingsError, match="UTF-8"):
        record_of(b"name: \xe4\nlr: 1\n", "c.yaml", "lr=2")


def test_a_changed_config_can_be_changed_again() -> None:
    for name, data in (("c.json", b'{\n\t"a": 1, "b": 2 }'), ("c.yaml", b"a: 1 # x\nb: 2\n")):
        once = record_of(data, name, "a=5")
        again = record_of(config_bytes(once.spec, None), name, "b=6")
        assert config_bytes(again.spec, {}) == data.replace(b"1", b"5").replace(b"2", b"6")


def test_a_large_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(SettingsError, match="4 MiB"):
        read_config(tmp_path / "c.json", "c.json")
    with pytest.raises(SettingsError, match="folder"):
        read_config(tmp_path, "c.json")


@pytest.mark.parametrize("depth", [150, 800])
def test_a_record_of_others_that_is_nested_deep_is_not_walked(depth: int) -> None:
    document: Any = 1
    for _ in range(depth):
        document = {"a": document}
    assert (
        config_values(run_record("r", "s", config="c.json", config_content=document).spec)
        == "(nested too deep to be shown)"
    )
