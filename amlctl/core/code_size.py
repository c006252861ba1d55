"""What makes a code snapshot large: the folders and files of `pipeline/` that hardly are code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

from amlctl.core.wording import count, size

MANY_FILES = 1_000
MANY_BYTES = 20 << 20
"""Above these every submit is slow, and something else than code is among the files."""
_ENVIRONMENT_SIGNS = ("pyvenv.cfg", "conda-meta/history")
"""Files at the top of a virtual and of a conda environment."""
_MAIN_SHARE = 0.8
_SHOWN = 3


@dataclass(frozen=True)
class LargeCode:
    """`message` names what is large, and `ignore_lines` leave it out, in `.amlctlignore` at the project's root."""

    message: str
    ignore_lines: tuple[str, ...]


def large_code(sizes: Mapping[str, int]) -> Optional[LargeCode]:
    """`sizes` in bytes by path relative to the project's root. None where nothing is remarkable."""
    environments = sorted(
        path[: -len(sign)] for path in sizes for sign in _ENVIRONMENT_SIGNS if path.endswith("/" + sign)
    )
    total = sum(sizes.values())
    if not environments and len(sizes) <= MANY_FILES and total <= MANY_BYTES:
        return None
    found = environments or _largest(sizes)
    shown = []
    for path in found[:_SHOWN]:
        inside = [held for one, held in sizes.items() if one.startswith(path)] if path.endswith("/") else [sizes[path]]
        files = f"{count(len(inside), 'file')}, " if path.endswith("/") else ""
        what = "a Python environment, " if path in environments else ""
        shown.append(f"{path} ({what}{files}{size(sum(inside))})")
    return LargeCode(
        f"{count(len(sizes), 'file')}, {size(total)} are sent with every run, most of it {', '.join(shown)}",
        tuple(f"/{path}" for path in found[:_SHOWN]),
    )


def _largest(sizes: Mapping[str, int]) -> list[str]:
    """Files and folders (ending in `/`) that together make most of it, the largest first; each as deep as one folder
    holds nearly all of what is above it."""
    weights: dict[str, float] = {}
    total_files, total_bytes = len(sizes), sum(sizes.values()) or 1
    for path, held in sizes.items():
        # A share of the limits, so that many small files weigh like a few large ones.
        weight = held / total_bytes * (total_bytes > MANY_BYTES) + (total_files > MANY_FILES) / total_files
        parts = path.split("/")
        for depth in range(2, len(parts) + 1):
            name = "/".join(parts[:depth]) + ("/" if depth < len(parts) else "")
            weights[name] = weights.get(name, 0.0) + weight
    children: dict[str, list[str]] = {}
    for name in weights:
        above = name.rstrip("/").rpartition("/")[0] + "/"
        children.setdefault(above, []).append(name)
    top = min((path.split("/")[0] for path in sizes), default="") + "/"
    found, covered = [], 0.0
    whole = sum(weights[name] for name in children.get(top, ()))
    for name in sorted(children.get(top, ()), key=lambda one: -weights[one]):
        if covered >= _MAIN_SHARE * whole:
            break
        covered += weights[name]
        while name.endswith("/"):
            heaviest = max(children[name], key=lambda one: weights[one])
            if weights[heaviest] < _MAIN_SHARE * weights[name] or not heaviest.endswith("/"):
                break
            name = heaviest
        found.append(name)
    return found
