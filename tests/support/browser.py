"""A headless Chromium, where this machine has one, e.g. from the package `chromium-headless-shell` of Debian."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
_LIMIT_S = 90
_DARK, _LIGHT = 0, 1


@dataclass(frozen=True)
class Browser:
    program: str
    profile: Path

    def dom(self, page: Path, *, is_dark: bool = False) -> str:
        """The document after its scripts have run."""
        return self._run("--dump-dom", f"--blink-settings=preferredColorScheme={_DARK if is_dark else _LIGHT}", page)

    def pdf(self, page: Path, target: Path) -> bytes:
        self._run(f"--print-to-pdf={target}", "--no-pdf-header-footer", page)
        return target.read_bytes()

    def _run(self, *arguments: str | Path) -> str:
        *options, page = arguments
        command = [self.program, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000"]
        done = subprocess.run(
            [*command, f"--user-data-dir={self.profile}", *map(str, options), Path(page).as_uri()],
            capture_output=True,
            timeout=_LIMIT_S,
            check=True,
        )
        return done.stdout.decode()


def find_browser(profile: Path) -> Browser:
    """Skips the test without one."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium-headless-shell")
    return Browser(found, profile)
