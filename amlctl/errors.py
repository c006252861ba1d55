"""Every error that a user can cause, and the exit code that goes with it.

    AmlctlError
    ├── RunFailed              1   the run did not complete
    ├── CheckFailed            1   a check of ours failed
    │   └── IntegrityError     1   bytes are not what their content id says
    ├── UsageError             2   wrong use of a command
    ├── SettingsError          3   a settings, config or environment file cannot be used
    │   └── BeyondBounds       3   a file that may be right, and is too large or nested too deep to be read
    ├── LoginError             3   not logged in
    ├── RightsError            3   logged in, but not allowed; also file permissions
    ├── NotFound               4   run, script, dataset, snapshot … does not exist
    ├── Conflict               5   the store, or the local copy, moved
    │   └── NeedsConfirmation  5   much would go, and it was not confirmed
    ├── ServiceUnavailable     6   network or service, after retries; a disk, a limit of the machine
    │   ├── StoreGone          6   a store that this project has used is not there any more
    │   └── Unconfirmed        6   a run was handed over, and no answer tells whether it was taken
    └── Interrupted          130   the user stopped it; the process exits with 128 + N after another signal N

The message says what happened to which thing; `hint` is what to type or do now.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class AmlctlError(Exception):
    """Base of all expected errors.

    `kind` is stable and machine-readable; `hint` may be empty; `details` are further lines (a list of
    paths, say) that a renderer shows below the message and cuts where they are many.
    """

    kind: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, *, hint: str = "", details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = tuple(details)


class RunFailed(AmlctlError):
    kind = "run_failed"
    exit_code = 1


class CheckFailed(AmlctlError):
    kind = "check_failed"
    exit_code = 1


class IntegrityError(CheckFailed):
    kind = "integrity"


class UsageError(AmlctlError):
    kind = "usage"
    exit_code = 2


class SettingsError(AmlctlError):
    kind = "settings"
    exit_code = 3


class BeyondBounds(SettingsError):
    kind = "beyond_bounds"


class LoginError(AmlctlError):
    kind = "login"
    exit_code = 3


class RightsError(AmlctlError):
    kind = "rights"
    exit_code = 3


class NotFound(AmlctlError):
    kind = "not_found"
    exit_code = 4


class Conflict(AmlctlError):
    kind = "conflict"
    exit_code = 5


class NeedsConfirmation(Conflict):
    """`details` list what would go. The same command goes through with `--yes`."""

    kind = "needs_confirmation"


class ServiceUnavailable(AmlctlError):
    """`was_sent` is False if the service certainly has not received the request."""

    kind = "unavailable"
    exit_code = 6
    was_sent = True


class StoreGone(ServiceUnavailable):
    """A share that is not mounted looks like an empty folder; a container may have been deleted."""

    kind = "store_gone"


class Unconfirmed(ServiceUnavailable):
    kind = "unconfirmed"


class Interrupted(AmlctlError):
    kind = "interrupted"
    exit_code = 130
