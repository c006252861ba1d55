"""A few months of a team: `python -m tests.simulator.team` lives whole years."""

from __future__ import annotations

import pytest

from tests.simulator.team import live


@pytest.mark.parametrize("seed", range(4))
def test_a_team_gets_what_a_dict_says(seed: int) -> None:
    reported = live(seed, 80)
    assert not reported, reported
