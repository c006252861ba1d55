"""What a log may do to a terminal, checked against a small terminal that notices everything else."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from amlctl.core.log_text import TerminalFilter

ESC = "\x1b"


class Terminal:
    """The parser of a VT500 (https://vt100.net/emu/dec_ansi_parser), as far as it matters: what a program has made it
    do beside showing text. Like xterm it also takes C1 controls, and it executes controls inside of a sequence."""

    def __init__(self) -> None:
        self.state = "ground"
        self.deeds: list[str] = []
        self.text = ""
        self.color = ""
        self._sequence = ""

    def write(self, text: str) -> None:
        for character in text:
            self._take(character)

    def _take(self, character: str) -> None:
        if character in "\x18\x1a":
            self.state = "ground"
        elif character == ESC:
            if self.state == "string":
                self.deeds.append("string")
            self.state, self._sequence = "escape", ""
        elif "\x80" <= character <= "\x9f":
            self.deeds.append(f"C1 {ord(character):x}")
            self.state = {"\x9b": "csi", "\x9c": "ground"}.get(character, "string")
        elif self.state == "string":
            if character == "\x07":
                self.deeds.append("string")
                self.state = "ground"
        elif character < " " or character == "\x7f":
            if character not in "\r\n\t":
                self.deeds.append(f"control {ord(character):x}")
            self.text += character
        elif self.state == "ground":
            self.text += character
        elif self.state == "escape":
            if character == "[":
                self.state = "csi"
            elif character in "P]X^_":
                self.state = "string"
            elif character >= "0":
                self.deeds.append(f"ESC {character}")
                self.state = "ground"
        elif "@" <= character <= "~":
            if character == "m" and re.fullmatch(r"[0-9;:]*", self._sequence):
                self.color = self._sequence
            else:
                self.deeds.append(f"CSI {self._sequence}{character}")
            self.state = "ground"
        else:
            self._sequence += character


def shown(*pieces: str) -> str:
    one = TerminalFilter()
    return "".join(map(one.feed, pieces))


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (f"{ESC}[1;31mred{ESC}[0m plain{ESC}[38;5;12m{ESC}[38:2::1:2:3m", None),
        ("10%\r100%\r\n\tdone\n", None),
        ("ünïcode 漢字 🚀\n", None),
        (f"a{ESC}]0;title\x07b", "ab"),
        (f"a{ESC}]52;c;cm0gLXJm{ESC}\\b", "ab"),
        (f"a{ESC}]8;;https://x{ESC}\\link{ESC}]8;;{ESC}\\b", "alinkb"),
        (f"a{ESC}[2J{ESC}[H{ESC}[3A{ESC}[?1049h{ESC}[6n{ESC}[>cb", "ab"),
        (f"a{ESC}P+q544e{ESC}\\b{ESC}_x{ESC}\\{ESC}^x\x07{ESC}Xx{ESC}\\c", "abc"),
        (f"a{ESC}cb{ESC}7{ESC}8{ESC}(0{ESC}#8c", "abc"),
        ("a\x9b2Jb\x9d0;t\x9cc\x90x\x9cd\x85e", "abcde"),
        ("a\x07\x08\x0c\x00\x7fb", "ab"),
        ("user\u202etxt.exe\u2066\u200f", "user\\u202etxt.exe\\u2066\\u200f"),
        (f"a{ESC}]0;no end\nnext line\n", "a\nnext line\n"),
        (f"a{ESC}[3\nb{ESC}\nc{ESC}[1{ESC}[2Jd{ESC}[1mé", f"a\nb\ncd{ESC}[1mé"),
        (f"a{ESC}[" + "1;" * 5000 + "mb", "ab"),
        (f"a{ESC}[=1mb{ESC}[1 mc", "abc"),
    ],
)
def test_what_comes_through(log: str, expected: str | None) -> None:
    assert shown(log) == (log if expected is None else expected)
    assert shown(*log) == shown(log)


SEQUENCES = (f"{ESC}[31m", f"{ESC}[0m", f"{ESC}[2J", f"{ESC}]0;t\x07", f"{ESC}]52;c;eA=={ESC}\\", f"{ESC}[", f"{ESC}]")
PIECES = st.sampled_from([*"aé\n\r\tm1;?[]P\\^_XJhc(0#8 \x1b\x9b\x9d\x9c\x90\x07\x18\x08\u202e\x00\x7f", *SEQUENCES])


@given(st.lists(PIECES, max_size=60), st.data())
@example([ESC, "[", "2", "J"], None)
def test_no_log_does_anything_but_write(pieces: list[str], data: st.DataObject | None) -> None:
    log = "".join(pieces)
    terminal, one, at = Terminal(), TerminalFilter(), 0
    seen = ""
    while at < len(log):
        size = data.draw(st.integers(1, 5)) if data is not None else 1
        part = one.feed(log[at : at + size])
        seen += part
        terminal.write(part)
        assert terminal.state == "ground", "a sequence was passed on in part"
        at += size
    assert terminal.deeds == []
    assert seen == shown(log)
    assert terminal.text.count("\n") == log.count("\n"), "a line is never lost, and none is made"
    terminal.write(one.end())
    assert terminal.color in ("", "0") or re.fullmatch(r"(?:.*[;:])?0*", terminal.color)


@given(st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs"])))
def test_text_comes_through_as_it_is(text: str) -> None:
    assert shown(text) == text


def test_a_color_that_the_log_has_left_on_is_put_back_once() -> None:
    one = TerminalFilter()
    one.feed(f"{ESC}[31mred")
    assert one.end() == f"{ESC}[0m"
    assert one.end() == ""
    one.feed(f"{ESC}[31mred{ESC}[m")
    assert one.end() == ""
