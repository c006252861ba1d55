from __future__ import annotations

from typing import Any

import pytest

from amlctl.core.config_overrides import apply_overrides
from amlctl.errors import UsageError

CONFIG: dict[str, Any] = {
    "epochs": 3,
    "rate": 0.1,
    "name": "baseline",
    "is_augmented": True,
    "resume": None,
    "model": {"layers": [{"width": 8}, {"width": 16}]},
    1: "one",
}


@pytest.mark.parametrize(
    ("override", "path", "expected"),
    [
        ("epochs=5", ["epochs"], 5),
        ("epochs=2.5", ["epochs"], 2.5),
        ("rate=1e-3", ["rate"], 0.001),
        ("name=tuned=2", ["name"], "tuned=2"),
        ("name=2024", ["name"], "2024"),
        ('name="true"', ["name"], "true"),
        ("is_augmented=false", ["is_augmented"], False),
        ("resume=last.pt", ["resume"], "last.pt"),
        ("epochs=null", ["epochs"], None),
        ("model.layers.1.width=32", ["model", "layers", 1, "width"], 32),
        ("model.layers=[]", ["model", "layers"], []),
        ("1=two", [1], "two"),
    ],
)
def test_values_are_typed(override: str, path: list[Any], expected: Any) -> None:
    value = apply_overrides(CONFIG, [override])
    for step in path:
        value = value[step]
    assert value == expected
    assert type(value) is type(expected)


def test_the_original_is_left_alone() -> None:
    apply_overrides(CONFIG, ["model.layers.0.width=1"])
    assert CONFIG["model"]["layers"][0]["width"] == 8


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("epochs", ["key=value"]),
        ("=3", ["key=value"]),
        ("epoch=3", ["'epoch'", "epochs"]),
        ("model.layer.0=3", ["'layer'", "model.layers"]),
        ("model.layers.2.width=3", ["list of 2"]),
        ("epochs.first=3", ["a number"]),
        ("epochs=many", ["'many'", "text", "a number"]),
        ("epochs=true", ["true or false", "a number"]),
        ("is_augmented=yes", ["text", "true or false"]),
        ("is_augmented=1", ["a number", "true or false"]),
        ("name=true", ["true or false", "text", 'name="true"']),
        ("model=3", ["a number", "a table"]),
    ],
)
def test_what_does_not_fit_is_told(override: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        apply_overrides(CONFIG, [override])
    for word in words:
        assert word in caught.value.message + caught.value.hint
