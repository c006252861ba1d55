"""What cannot be the place of a store is refused, before a folder of that name is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from amlctl.core.settings import Settings
from amlctl.errors import SettingsError
from amlctl.localfs.project import Project
from amlctl.wiring import App

URL = "https://a.blob.core.windows.net/data"


@pytest.mark.parametrize(
    "url",
    ["https//a.blob.core.windows.net/data", "https:/a/data", "HTTP//a/data", "", " ", f" {URL}", f"{URL}/a\nb", "a\tb"],
)
def test_a_typo_is_reported(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError):
        App(Project(tmp_path), Settings(), {"AZURE_STORAGE_KEY": "eA=="}).open_store(url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["file://", "file:", "file:///", "file://localhost/"])
def test_a_file_url_without_a_folder_is_reported(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError, match="does not name a folder"):
        App(Project(tmp_path), Settings(), {}).open_store(url)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(SettingsError, match="is a file, not a folder"):
        App(Project(tmp_path), Settings(), {}).open_store("store")


def test_a_home_folder_that_does_not_exist_is_reported(tmp_path: Path) -> None:
    app = App(Project(tmp_path), Settings(environments_dir="~nouser/environments"), {})
    for used in (
        lambda: app.environments_dir,
        lambda: app.open_store("~nouser/store"),
        lambda: app.plain_files("~no/x"),
    ):
        with pytest.raises(SettingsError, match="names a home folder that does not exist"):
            used()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("~")]
