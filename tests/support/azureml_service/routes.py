"""From method and path to handler."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from .place import PROVIDER
from .replies import Handler, Reply, Request, arm_error

_WORKSPACE = rf"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/{PROVIDER}/workspaces/[^/]+"


class Routes:
    """Paths are matched whole and without regard to case; `{ws}` in a pattern stands for the workspace's."""

    def __init__(self, routes: Sequence[tuple[str, str, Handler]], refuse_others: Callable[[str], None]) -> None:
        self._routes = [
            (method, re.compile(pattern.replace("{ws}", _WORKSPACE), re.IGNORECASE), handler)
            for method, pattern, handler in routes
        ]
        self._refuse_others = refuse_others

    def answer(self, request: Request) -> Reply:
        path = request.path.rstrip("/")
        self._refuse_others(path)
        methods = set()
        for method, pattern, handler in self._routes:
            if found := pattern.fullmatch(path):
                if method == request.method:
                    return handler(replace(request, names=found.groupdict()))
                methods.add(method)
        if methods:
            raise arm_error(405, "MethodNotAllowed", f"{request.method} is not served at {path}.")
        raise arm_error(404, "InvalidResourceType", f"Nothing is served at {path}.")
