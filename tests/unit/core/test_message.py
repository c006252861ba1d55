"""Commands in messages are data: quoted once, with the options of this call, and never found in a text."""

from __future__ import annotations

import copy
import pickle
import shlex
import subprocess
from pathlib import Path

import pytest

from amlctl.cli.arguments import GlobalOptions
from amlctl.cli.output import Commands
from amlctl.core.message import Command, Message, shell_word

WORDS = [
    "plain",
    "a b",
    "it's",
    "",
    "$HOME",
    "`x`",
    "new\nline",
    "esc\x1b[2J",
    "日本",
    "\udcff",
    "a\\b\n'c'",
    "x\u202ey",
]


@pytest.mark.parametrize("word", WORDS)
def test_a_shell_reads_back_the_very_word(word: str) -> None:
    typed = shell_word(word)
    done = subprocess.run(["bash", "-c", f"printf %s {typed}"], capture_output=True, check=True)
    assert done.stdout == word.encode("utf-8", "surrogateescape")
    assert "\x1b" not in typed
    assert "\n" not in typed


def typed(text: str, *, store: str | None = None, **options: object) -> str:
    commands = Commands(GlobalOptions(**options))  # type: ignore[arg-type]
    commands.store_url = store
    return commands.in_words(text)


def test_as_a_text_it_has_no_options() -> None:
    assert str(Command("sync", "data_blobs/a b")) == "amlctl sync 'data_blobs/a b'"
    assert str(Message("first ", Command("runs"), ", then go")) == "first amlctl runs, then go"


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        (Command("sync", "x"), {"workspace": "my ws"}, "amlctl --workspace 'my ws' sync x"),
        (Command("sync", "x"), {"project": Path("a b")}, "amlctl --project 'a b' sync x"),
        (Command("sync", "--pull", "x"), {"store": "/s t"}, "amlctl sync --store '/s t' --pull x"),
        (
            Command("store", "gc", "--yes"),
            {"store": "s", "workspace": "w"},
            "amlctl --workspace w store gc --store s --yes",
        ),
        (Command("runs"), {"store": "s"}, "amlctl runs"),
        (Command("store", "gc"), {"store": "https://a/b?sig=SECRET"}, "amlctl store gc --store https://a/b"),
        (Command("runs", workspace="other"), {"workspace": "w"}, "amlctl --workspace other runs"),
        (Command("--help"), {"workspace": "w"}, "amlctl --help"),
        (Command("init"), {"project": Path("p"), "workspace": "w"}, "amlctl init p"),
        (Message("a ", Message("b ", Command("runs"))), {"workspace": "w"}, "a b amlctl --workspace w runs"),
        ("amlctl sync notes", {"workspace": "w", "store": "s"}, "amlctl sync notes"),
        (
            Message("my amlctl sync notes: ", Command("runs")),
            {"workspace": "w"},
            "my amlctl sync notes: amlctl --workspace w runs",
        ),
    ],
)
def test_the_options_of_the_call_are_added_at_the_edge(text: str, options: dict[str, object], expected: str) -> None:
    assert typed(text, **options) == expected  # type: ignore[arg-type]


def test_copies_keep_their_parts() -> None:
    message = Message("try ", Command("runs", "show", "a b", workspace="w"))
    for made in (copy.deepcopy(message), pickle.loads(pickle.dumps(message))):
        assert made == message
        command = made.parts[1]
        assert isinstance(command, Command)
        assert (command.words, command.workspace) == (("runs", "show", "a b"), "w")


def test_every_word_is_one_argument() -> None:
    assert shlex.split(Command("sync", *WORDS[:6], "日本"))[2:] == [*WORDS[:6], "日本"]
