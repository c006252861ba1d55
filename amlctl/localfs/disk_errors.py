"""What the operating system says of a disk, as an error of the user's."""

from __future__ import annotations

import errno
import os
from typing import Optional

from amlctl.errors import AmlctlError, RightsError, ServiceUnavailable

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def disk_error(
    error: OSError, what: str, *, rights_hint: str = "check the rights of that file and its folder"
) -> Optional[AmlctlError]:
    """The error for a full disk or missing rights, which are the user's to mend; None for everything else.

    `what` is the thing that could not be read or written; it begins the message and may be empty.
    """
    begin = f"{what}: " if what else ""
    if error.errno in FULL:
        return ServiceUnavailable(f"{begin}no space left on the disk", hint="make room, then run it again")
    if error.errno in _FORBIDDEN:
        return RightsError(f"{begin}{os.strerror(error.errno).lower()}", hint=rights_hint)
    return None
