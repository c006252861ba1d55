"""How datasets are called in a store; the golden list stays as it is, or datasets are lost from view."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amlctl.core.store_keys import check_dataset_name, dataset_folder, dataset_of_folder, folders_of, old_folder
from amlctl.errors import UsageError

GOLDEN = json.loads((Path(__file__).parents[2] / "data/store/dataset-names.json").read_text("utf-8"))


@pytest.mark.parametrize(("dataset", "folder"), GOLDEN)
def test_names_are_spelled_as_they_always_were(dataset: str, folder: str) -> None:
    assert dataset_folder(dataset) == folder
    assert dataset_of_folder(folder) == dataset == dataset_of_folder(old_folder(dataset))


PARTS = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(st.lists(PARTS, min_size=1, max_size=3).map("/".join))
def test_every_name_comes_back(dataset: str) -> None:
    for folder in folders_of(dataset):
        assert dataset_of_folder(folder) == dataset
        names = folder.split("/")
        assert not {"HEAD", "shards", "mirror.lease"} & set(names)
        assert not any(name.endswith((".", ".gz")) for name in names)


@given(st.lists(PARTS, min_size=2, max_size=2, unique=True))
def test_no_two_have_one_folder(names: list[str]) -> None:
    one, other = names
    assert not set(folders_of(one)) & set(folders_of(other))


def test_letters_take_no_more_room_than_here() -> None:
    check_dataset_name("working/" + "\u6570" * 85)
    check_dataset_name("working/" + "\u0434" * 127)
    with pytest.raises(UsageError, match="the limit is 255"):
        check_dataset_name("working/" + "\U0001f680" * 30)
