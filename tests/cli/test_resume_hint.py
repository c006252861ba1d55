"""Ctrl-C says what was kept, and that the same command continues; and then it does."""

from __future__ import annotations

import random
import re
import shutil

from tests.cli.conftest import Cli, StartTerminal
from tests.support.azurite import Azurite
from tests.support.slow_link import slow_link

MB = 1_000_000
HINT = "what has arrived is kept; run the same command again to continue"


def _large_file(project: Cli) -> None:
    data = project.cwd / "data_blobs/working/x"
    data.mkdir(parents=True)
    (data / "large").write_bytes(random.Random(1).randbytes(48 * MB))


def test_sync_and_pull_continue(project: Cli, terminal: StartTerminal, azurite: Azurite) -> None:
    _large_file(project)
    variables = {"AZURE_STORAGE_KEY": azurite.key}
    container = azurite.new_container()
    with slow_link(azurite.url, 6 * MB) as link:
        store = ("--store", f"{link.url}/{container}")
        for pull, word in (((), "sent"), (("--pull",), "received")):
            command = ("sync", *pull, *store, "data_blobs/working/x")
            screen = terminal(project.command(*command), project.cwd, variables=variables)
            for text in screen.pieces():
                if re.search(r"(?:2[7-9]|3\d|4[0-7]) MB of 48 MB", text) or (pull and " left" in text):
                    break
            screen.type("\x03")
            assert screen.finish() == 130
            # What had not arrived whole does not count.
            assert re.search(rf"hint:\S* (?:[0-9.]+ .?B of 48 MB {word}: )?{HINT}", screen.text), screen.text[-500:]
            if not pull:
                assert "of 48 MB sent: " in screen.text
            link.there.bytes_per_s = link.back.bytes_per_s = 1000 * MB
            again = project(*command, "--json", variables=variables)
            link.there.bytes_per_s = link.back.bytes_per_s = 6 * MB
            assert again.code == 0
            if not pull:
                assert again.document["uploaded_bytes"] < 40 * MB
            shutil.rmtree(project.cwd / "data_blobs/working/x")


def test_a_submit_that_was_still_sending_has_started_no_run(
    project: Cli, terminal: StartTerminal, azurite: Azurite
) -> None:
    _large_file(project)
    project.write("pipeline/s.py", "print(1)\n")
    with slow_link(azurite.url, 4 * MB) as link:
        settings = project.cwd / ".amlctl.toml"
        text = settings.read_text()
        settings.write_text(text.replace('store = ".amlctl/store"', f'store = "{link.url}/{azurite.new_container()}"'))
        assert settings.read_text() != text
        command = project.command("submit", "s.py", "--dataset", "working/x", "--env-from", "current")
        screen = terminal(command, project.cwd, variables={"AZURE_STORAGE_KEY": azurite.key})
        screen.wait_for(" left")
        screen.type("\x03")
        assert screen.finish() == 130
        assert HINT in screen.text
        listed = project("runs", "--json", variables={"AZURE_STORAGE_KEY": azurite.key})
        assert listed.document["runs"] == []
