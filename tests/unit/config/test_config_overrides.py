"""`--set` changes one value of a config's text, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from amlctl.config.config_edit import with_overrides
from amlctl.errors import SettingsError, UsageError

CONFIG: dict[str, Any] = {
    "epochs": 3,
    "rate": 0.1,
    "name": "baseline",
    "is_augmented": True,
    "resume": None,
    "model": {"layers": [{"width": 8}, {"width": 16}]},
    "1": "one",
    "a.b": {"c": 1},
}
JSON = json.dumps(CONFIG, indent=4)
YAML = """\
# how it was trained
epochs: 3  # of 10
rate: 0.1
name: baseline
is_augmented: true
resume:
model:
  layers:
  - width: 8
  - {width: 16}
'1': one
a.b:
    c: 1
"""


def changed(text: str, *overrides: str, is_yaml: bool = True) -> str:
    return with_overrides(
        text, "c.yaml" if is_yaml else "c.json", overrides, lambda key, new, old: new, is_yaml=is_yaml
    )


@pytest.mark.parametrize(
    ("override", "path", "expected"),
    [
        ("epochs=5", ["epochs"], 5),
        ("epochs=2.5", ["epochs"], 2.5),
        ("epochs=0x10", ["epochs"], 16),
        ("epochs=010", ["epochs"], 10),
        ("epochs=1e3", ["epochs"], 1000.0),
        ("rate=1e-3", ["rate"], 0.001),
        ("rate=.5", ["rate"], 0.5),
        ("name=tuned=2", ["name"], "tuned=2"),
        ("name=2024", ["name"], "2024"),
        ("name=1e-5", ["name"], "1e-5"),
        ("name=2024-01-02", ["name"], "2024-01-02"),
        ("name=yes", ["name"], "yes"),
        ("name=", ["name"], ""),
        ("name=a: b # c", ["name"], "a: b # c"),
        ("name=- x", ["name"], "- x"),
        ("name=naïve — 日本 \U0001f600", ["name"], "naïve — 日本 \U0001f600"),
        ("name=two\nlines\ttab", ["name"], "two\nlines\ttab"),
        ("name=\x85\u2028x", ["name"], "\x85\u2028x"),
        ('name="true"', ["name"], "true"),
        ("name='it''s'", ["name"], "it's"),
        ('name="half', ["name"], '"half'),
        ("is_augmented=false", ["is_augmented"], False),
        ("is_augmented=False", ["is_augmented"], False),
        ("resume=last.pt", ["resume"], "last.pt"),
        ("resume=3", ["resume"], 3),
        ("resume=[1, {a: b}]", ["resume"], [1, {"a": "b"}]),
        ("epochs=null", ["epochs"], None),
        ("model.layers.1.width=32", ["model", "layers", 1, "width"], 32),
        ("model.layers.-2.width=32", ["model", "layers", 0, "width"], 32),
        ("model.layers.0={width: 9}", ["model", "layers", 0], {"width": 9}),
        ("model.layers=[]", ["model", "layers"], []),
        ('model={"layers": ["x", null, 1.5]}', ["model"], {"layers": ["x", None, 1.5]}),
        ("1=two", ["1"], "two"),
        ("a.b.c=7", ["a.b", "c"], 7),
    ],
)
@pytest.mark.parametrize("is_yaml", [True, False])
def test_values_are_typed(override: str, path: list[Any], expected: Any, is_yaml: bool) -> None:
    text = changed(YAML if is_yaml else JSON, override, is_yaml=is_yaml)
    document = yaml.safe_load(text) if is_yaml else json.loads(text)
    wanted = json.loads(json.dumps(CONFIG))
    here = wanted
    for step in path[:-1]:
        here = here[step]
    here[path[-1]] = expected
    assert document == wanted
    value = document
    for step in path:
        value = value[step]
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("before", "override", "after"),
    [
        ("lr: 1e-5\n", "lr=0.001", "lr: 0.001\n"),
        ("lr: 0.1\n", "lr=1e-5", "lr: 1.0e-05\n"),
        ("lr: 1e-5  # small\nb: 1\n", "lr=2", "lr: 2  # small\nb: 1\n"),
        ("day: 2024-01-01\n", "day=2025-02-03", "day: 2025-02-03\n"),
        ("day: 2024-01-01\n", "day=2025-02-03 04:05:06", "day: 2025-02-03 04:05:06\n"),
        ("day: 2024-01-01\n", 'day="later"', "day: later\n"),
        ("day: '2024-01-01'\n", "day=2025-02-03", "day: '2025-02-03'\n"),
        ("flag: yes\n", "flag=no", "flag: no\n"),
        ("flag: yes\n", "flag=false", "flag: false\n"),
        ("n: 1_000\n", "n=2_000", "n: 2_000\n"),
        ("a: 'x'\r\nb: 2\r\n", "a=y", "a: 'y'\r\nb: 2\r\n"),
        ("\ufeffa: 1\n", "a=2", "\ufeffa: 2\n"),
        ("a: |\n  some\n  text\n\n# more\nb: 1\n", "a=x", "a: x\n\n# more\nb: 1\n"),
        ("a:\n- 1\n- 2\n\n# more\nb: 1\n", "a=[3]", "a: [3]\n\n# more\nb: 1\n"),
        ("a:  # why\n  - 1\nb: 1\n", "a=[3]", "a:  # why\n  [3]\nb: 1\n"),
        ("a: {b: 1, c: [1, 2]}\n", "a.c.0=9", "a: {b: 1, c: [9, 2]}\n"),
        (
            "a: !!python/tuple [0.9, 0.999]\nb: !include x.yaml\n",
            "a.1=0.9",
            "a: !!python/tuple [0.9, 0.9]\nb: !include x.yaml\n",
        ),
        ("a: !!python/tuple [0.9, 0.999]\n", "a=[1, 2]", "a: !!python/tuple [1, 2]\n"),
        ("b: !include x.yaml\n", "b=y.yaml", "b: !include y.yaml\n"),
        ("a: &x 1\nb: *x\nc: *x\n", "b=2", "a: &x 1\nb: 2\nc: *x\n"),
        ("---\na: 1\n...\n", "a=2", "---\na: 2\n...\n"),
        ("? a\n: 1\n", "a=2", "? a\n: 2\n"),
        ("a:\n", "a=[1]", "a: [1]\n"),
        ("- 1\n-\n- 3\n", "1=2", "- 1\n- 2\n- 3\n"),
    ],
)
def test_the_rest_of_a_yaml_text_stays(before: str, override: str, after: str) -> None:
    assert changed(before, override) == after


@pytest.mark.parametrize(
    ("before", "override", "after"),
    [
        ('{\n\t"a" : 1,\n\t"b":[ 1,2 ]\n}', "b.1=3", '{\n\t"a" : 1,\n\t"b":[ 1,3 ]\n}'),
        ('// why\n{"a": 1, /* b */ "b": 2,}\n', "a=1e-5", '// why\n{"a": 1e-5, /* b */ "b": 2,}\n'),
        ("\ufeff{a: 'x'}\r\n", "a=y", '\ufeff{a: "y"}\r\n'),
        ('{"a": 12345678901234567890.10, "b": 1}', "b=2", '{"a": 12345678901234567890.10, "b": 2}'),
        ('{"a": NaN}', "a=1", '{"a": 1}'),
    ],
)
def test_the_rest_of_a_json_text_stays(before: str, override: str, after: str) -> None:
    assert changed(before, override, is_yaml=False) == after


@pytest.mark.parametrize(
    ("before", "override", "expected"),
    [
        ("base: &b {lr: 1, n: 2}\none: *b\ntwo: *b\n", "one.lr=5", {"base": 1, "one": 5, "two": 1}),
        ("base: &b {lr: 1, n: 2}\none: *b\ntwo: *b\n", "base.lr=5", {"base": 5, "one": 1, "two": 1}),
        ("base: &b\n  lr: 1\n  n: 2\none:\n  <<: *b\n  m: 3\ntwo: *b\n", "one.lr=5", {"base": 1, "one": 5, "two": 1}),
        (
            "base: &b\n  lr: &r 1\none: {lr: *r}\ntwo:\n  <<: [*b, {k: 9}]\n",
            "base.lr=5",
            {"base": 5, "one": 1, "two": 1},
        ),
        (
            "base: &b\n  lr: &r 1\none: {lr: *r}\ntwo:\n  <<: [*b, {k: 9}]\n",
            "base={lr: 5}",
            {"base": 5, "one": 1, "two": 1},
        ),
        ("base: {lr: &r 1}\none: &o {lr: *r}\ntwo: *o\n", "one.lr=5", {"base": 1, "one": 5, "two": 1}),
    ],
)
def test_only_the_value_that_is_named_changes_where_others_refer_to_it(
    before: str, override: str, expected: dict[str, int]
) -> None:
    document = yaml.safe_load(changed(before, override))
    assert {name: part["lr"] for name, part in document.items()} == expected


@pytest.mark.parametrize("is_yaml", [True, False])
@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("epochs", ["key=value"]),
        ("=3", ["key=value"]),
        ("epoch=3", ["'epoch'", "epochs"]),
        ("model.layer.0=3", ["'layer'", "model.layers"]),
        ("model.layers.2.width=3", ["list of 2 items"]),
        ("epochs.first=3", ["a number"]),
        ("epochs=many", ["'many'", "text", "a number"]),
        ("epochs=true", ["true or false", "a number"]),
        ("is_augmented=yes", ["text", "true or false"]),
        ("is_augmented=1", ["a number", "true or false"]),
        ("name=true", ["true or false", "text", 'name="true"']),
        ("model=3", ["a number", "a table"]),
        ("resume=" + "[" * 3000, ["levels deep"]),
        ("resume={a: 1, a: 2}", ["'a'", "line 1"]),
        ("name=\udcff", ["not valid text"]),
        ('name="\\ud800"', ["not valid text"]),
    ],
)
def test_what_does_not_fit_is_reported(override: str, words: list[str], is_yaml: bool) -> None:
    with pytest.raises(UsageError) as caught:
        changed(YAML if is_yaml else JSON, override, is_yaml=is_yaml)
    for word in words:
        assert word in caught.value.message + caught.value.hint


def test_an_impossible_date_cannot_be_set() -> None:
    with pytest.raises(UsageError, match="month must be in"):
        changed("day: 2024-01-01\n", "day=2025-13-45")


def bomb(levels: int = 9) -> str:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join([*lines, "lr: 1"])


@pytest.mark.parametrize(
    ("text", "is_yaml", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", True, "c.yaml:3: the key 'a' is there twice, first on line 1"),
        ('{"a": 1,\n"lr": 1,\n"a": 2}', False, "c.json:3: the key 'a' is there twice, first on line 1"),
        ("a: [\n", True, "c.yaml:2"),
        ('{"a": 1,\n "b": }', False, "c.json:2:7"),
        ("lr: " + "[" * 500 + "]" * 500, True, "levels deep"),
        ('{"lr": ' + "[" * 5000 + "]" * 5000 + "}", False, "levels deep"),
        (bomb(), True, "100,000 values"),
        ("a: &a [*a]\nlr: 1\n", True, "cannot contain itself"),
        ("lr: *b\n", True, "c.yaml:1"),
        ("lr: \x00\n", True, "c.yaml:1"),
    ],
)
def test_what_cannot_be_read_is_reported_with_its_line(text: str, is_yaml: bool, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        changed(text, "lr=2", is_yaml=is_yaml)
    assert words in caught.value.message


@pytest.mark.parametrize("text", ["a: 1\n---\nb: 2\n", "", "# nothing\n"])
def test_one_document_is_needed(text: str) -> None:
    with pytest.raises(UsageError, match=r"documents|no values"):
        changed(text, "a=2")


def test_values_beside_it_are_not_judged() -> None:
    long = "9" * 5000
    assert changed(f"a: {long}\nd: 2024-13-45\nlr: 1\n", "lr=2") == f"a: {long}\nd: 2024-13-45\nlr: 2\n"
    text = f'{{"a": {long}, "s": "\\ud800", "lr": 1}}'
    assert changed(text, "lr=2", is_yaml=False) == text.replace('"lr": 1', '"lr": 2')
