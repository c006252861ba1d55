"""Which source of a run's spec wins, and where its value stands."""

from __future__ import annotations

import pytest

from amlctl.core.run import PartialSpec, merge
from amlctl.errors import SettingsError

TYPED = PartialSpec("command line", {"compute": "gpu", "variables": {"A": "1"}, "mode": None})
JOB = PartialSpec(
    "job.yml",
    {"compute": "cpu", "mode": "download", "variables": {"A": "2", "B": "3"}, "environment": "image:x"},
    {"compute": "job.yml:4", "environment": "job.yml:7", "inputs.data": "job.yml:9"},
)
RUN = PartialSpec(
    "run r", {"mode": "mount", "environment": "abc", "environment_content": "deps", "config": "c", "config_content": 1}
)


def test_the_stronger_source_wins_field_by_field() -> None:
    found = merge([TYPED, JOB, RUN])
    assert (found.spec.compute, found.spec.mode, found.spec.config_content) == ("gpu", "download", 1)
    assert found.sources["compute"] == "command line"
    assert found.sources["mode"] == "job.yml"
    assert found.spec.experiment == ""
    assert "experiment" not in found.sources


def test_variables_are_merged_by_name() -> None:
    assert merge([TYPED, JOB]).spec.variables == {"A": "1", "B": "3"}
    assert merge([PartialSpec("a", {"tags": {}}), PartialSpec("b", {"tags": {"t": "1"}})]).sources == {"tags": "b"}


def test_an_empty_value_wins_over_a_weaker_source() -> None:
    assert merge([PartialSpec("a", {"datasets": {}}), PartialSpec("b", {"datasets": {"x": ""}})]).spec.datasets == {}


def test_the_content_of_an_environment_comes_from_the_source_of_its_id() -> None:
    assert merge([JOB, RUN]).spec.environment_content is None
    assert merge([RUN]).spec.environment_content == "deps"


def test_an_error_names_the_line_of_the_value_that_won() -> None:
    found = merge([TYPED, JOB, RUN])
    for key, message in (("environment", "job.yml:7: no"), ("inputs.data", "job.yml:9: no"), ("compute", "no")):
        with pytest.raises(SettingsError) as caught, found.at(key):
            raise SettingsError("no", hint="yes")
        assert (caught.value.message, caught.value.hint) == (message, "yes")
