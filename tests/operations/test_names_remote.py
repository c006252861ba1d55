"""Names that files may have, in a container: packs take every one, a mirror those that a blob can have."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from amlctl.errors import SettingsError
from amlctl.stores.azure_blob.store import AzureBlobStore
from tests.support.azurite import Azurite
from tests.support.clones import Clone
from tests.support.fault_proxy import FaultProxy, fault_proxy
from tests.support.trees import Tree

_FIT = [
    "with space.txt",
    " leading and trailing ",
    'quote\'s "double" `back`.txt',
    "per%20cent%",
    "a+b=c&d;e,f",
    "#hash",
    "question?.txt",
    "*star|pipe<angle>",
    ":colon@at",
    "[bracket]{brace}~tilde^",
    "-dash",
    ".hidden",
    "x" * 255,
    "HEAD",
    "a.gz/shards/HEAD",
    "mirror.lease",
    "日本語/ü/😀",
    unicodedata.normalize("NFC", "é"),
    unicodedata.normalize("NFD", "é"),
    "Twin",
    "twin",
]
_UNFIT = [
    "back\\slash",
    "new\nline",
    "tab\tand\rreturn",
    "bell\x07",
    "c1\x85",
    "trailing.",
    "folder./file",
    os.fsdecode(b"latin-\xe9"),
]
pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="APFS takes no name that is not UTF-8, and no twins")


def _tree(names: list[str]) -> Tree:
    """A content for each name, so that a name that stands for another one is seen."""
    return {name: os.fsencode(name) for name in names}


@pytest.fixture
def machines(tmp_path: Path, azurite: Azurite) -> Iterator[tuple[Clone, Clone, FaultProxy]]:
    """Two that share a container; the first reaches it through the proxy."""
    container = azurite.new_container()
    with fault_proxy(azurite.url) as proxy, ExitStack() as stack:
        clones = []
        for number, url in enumerate((proxy.url, azurite.url)):
            store = AzureBlobStore(f"{url}/{container}", {"AZURE_STORAGE_KEY": azurite.key})
            stack.callback(store.close)
            clones.append(Clone(tmp_path / str(number), store))
        yield clones[0], clones[1], proxy


@pytest.mark.parametrize("layout", ["pack", "auto", "mirror"])
def test_names_come_back_as_they_were(machines: tuple[Clone, Clone, FaultProxy], layout: str) -> None:
    one, other, _ = machines
    one.make(_tree(_FIT if layout == "mirror" else [*_FIT, *_UNFIT]))
    one.sync(layout=layout)
    other.pull()
    assert other.tree == one.tree
    assert one.sync(layout=layout).uploaded_blobs == 0


def test_a_mirror_names_all_files_that_it_cannot_have_and_sends_nothing(
    machines: tuple[Clone, Clone, FaultProxy],
) -> None:
    one, other, proxy = machines
    one.make(_tree([*_FIT, *_UNFIT]))
    with pytest.raises(SettingsError, match=f"{len(_UNFIT)} files of working/x") as caught:
        one.sync(layout="mirror")
    assert "--layout pack" in caught.value.hint
    assert len(caught.value.details) == len(_UNFIT)
    for name in _UNFIT:
        assert any(repr(name)[1:-1] in line for line in caught.value.details)
    assert not [seen for seen in proxy.seen if "/mirror/" in seen.path]
    with pytest.raises(SettingsError, match="files of working/x"):
        one.foresee(layout="mirror")
    one.sync(layout="pack")
    other.pull()
    assert other.tree == one.tree


@pytest.mark.parametrize("dataset", ["working/a. b./c", "raw/50%?#+ü", "raw/back\\slash", "raw/HEAD"])
def test_datasets_may_be_called_anything(machines: tuple[Clone, Clone, FaultProxy], dataset: str) -> None:
    one, other, proxy = machines
    one.make({"file": b"1"}, dataset)
    one.sync(dataset)
    other.pull(dataset)
    assert (other.project.dataset_path(dataset) / "file").read_bytes() == b"1"
    assert not [seen for seen in proxy.seen if "./" in seen.path or seen.path.split("?")[0].endswith(".")]
