"""`skill`: one page about all commands."""

from __future__ import annotations

from amlctl.cli.command_group import COMMANDS
from tests.cli.conftest import Cli


def test_the_page_has_every_command(folder: Cli) -> None:
    page = folder("skill").out
    assert page.startswith("---\nname: amlctl\n")
    assert [name for name in COMMANDS if f"`amlctl {name}" not in page] == []
    assert "`amlctl runs compare`" in page
    assert folder.json("skill")["skill"] + "\n" == page
