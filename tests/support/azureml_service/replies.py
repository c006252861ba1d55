"""A request as handlers see it, and the replies: documents, refusals in the service's two shapes."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .place import now

NO_BODY = object()
"""A reply of length zero; None is the four letters null."""


@dataclass(frozen=True)
class Request:
    """`names` are the parts of the path; `body` is the JSON sent, an empty mapping if none."""

    method: str
    path: str
    query: Mapping[str, str]
    body: Mapping[str, Any]
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def api_version(self) -> str:
        return self.query.get("api-version", "")


@dataclass(frozen=True)
class Reply:
    status: int
    body: Any = NO_BODY
    headers: Mapping[str, str] = field(default_factory=dict)


class RefusedError(Exception):
    """A handler says no with this reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply.body))
        self.reply = reply


Handler = Callable[[Request], Reply]


def arm_error(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> RefusedError:
    """The shape of Azure Resource Manager itself."""
    return RefusedError(Reply(status, {"error": {"code": code, "message": message}}, headers or {}))


def user_error(status: int, message: str, inner: str, *, region: str = "eastus") -> RefusedError:
    """The shape of the job and asset front end: the useful code is the innermost."""
    values: list[tuple[str, Any]] = [
        ("ComponentName", "managementfrontend"),
        ("Correlation", {"operation": uuid.uuid4().hex, "request": uuid.uuid4().hex[:16]}),
        ("Environment", region),
        ("Location", region),
        ("Time", now()),
        ("InnerError", {"code": inner, "innerError": None}),
    ]
    return RefusedError(
        Reply(
            status,
            {
                "error": {
                    "code": "UserError",
                    "message": message,
                    "details": [],
                    "additionalInfo": [{"type": kind, "info": {"value": value}} for kind, value in values],
                }
            },
            {"x-ms-response-type": "error"},
        )
    )


def not_found(message: str) -> RefusedError:
    return user_error(404, message, "NotFoundError")
