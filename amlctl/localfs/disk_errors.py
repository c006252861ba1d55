"""What the operating system says, as an error for the user: the one place where an `errno` gets its meaning.

A disk or a limit of this machine is never a reason to call data changed or damaged: nothing is known about what cannot
be read. Rights and names that cannot exist are for the user to correct (exit code 3); what a disk, a network file
system or a limit refuses may work later (exit code 6).
"""

from __future__ import annotations

import errno
import os
import shlex
from pathlib import Path
from typing import Optional

from amlctl.core.message import AGAIN, Message
from amlctl.errors import AmlctlError, Conflict, RightsError, ServiceUnavailable, SettingsError


class UnfitFile(OSError):
    """What stands at the path is not a regular file, or is larger than a file of its kind can be."""


FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def _again(first: str) -> Message:
    return Message(first, ", then ", AGAIN)


_OF_THE_DISK = {
    errno.EIO: ("input/output error of the disk", _again("check the disk (dmesg)")),
    errno.ESTALE: ("the network file system has lost the file (stale handle)", _again("mount it again")),
    errno.ENOTCONN: ("the file system is not connected any more", _again("mount it again")),
    errno.ETIMEDOUT: ("the network file system does not answer", _again("check the network and its server")),
    errno.EHOSTDOWN: ("the network file system's server is down", _again("check the network and its server")),
    errno.EHOSTUNREACH: ("the network file system's server cannot be reached", _again("check the network")),
    errno.ENXIO: ("the device is not there any more", _again("check the disk")),
    errno.ENODEV: ("the device is not there any more", _again("check the disk")),
    errno.EFBIG: ("the file is larger than allowed", "raise the limit (ulimit -f), or use a file system without it"),
    errno.ETXTBSY: ("the file is a program that is running", _again("end that program")),
    errno.EBUSY: ("another program or a mount uses it", _again("end that program")),
    errno.ENOLCK: ("the file system has no locks left", _again("check the lock service of the network file system")),
    errno.EINVAL: ("the file system does not support this operation", "use another file system for it"),
    errno.EOPNOTSUPP: ("the file system does not support this operation", "use another file system for it"),
}
"""What to say, and what to do about it: ServiceUnavailable."""
_OF_A_LIMIT = {
    errno.EMFILE: ("too many open files in this process", "raise the limit (ulimit -n 4096), or use --jobs 4"),
    errno.ENFILE: ("too many open files on this machine", _again("end other programs")),
    errno.ENOMEM: ("not enough memory", _again("end other programs or raise the limit (ulimit -v)")),
    errno.ENOBUFS: ("not enough memory for network buffers", _again("end other programs")),
    errno.EAGAIN: ("no more threads or processes allowed", _again("raise the limit (ulimit -u)")),
}
LIMITS = frozenset(_OF_A_LIMIT)
_OF_A_NAME = {
    errno.ENAMETOOLONG: ("the name is too long for this file system", "use shorter names"),
    errno.ELOOP: ("too many symbolic links follow each other", "remove the link that leads to itself"),
    errno.ENOTDIR: ("a file stands where a folder is needed", "move that file away"),
    errno.EILSEQ: ("the file system does not allow this name", "rename the file, or use another file system"),
}
"""What cannot exist under that name: SettingsError."""


_REFUSALS = frozenset(
    {
        errno.EPERM,
        errno.EACCES,
        errno.EINVAL,
        errno.ENOSYS,
        errno.ENOTSUP,
        errno.EOPNOTSUPP,
        errno.ENOTTY,
        errno.EMLINK,
        errno.ENOLCK,
        errno.EBADF,  # flock on a file that is open for reading alone, over NFS
    }
)


def is_refusal(error: OSError) -> bool:
    """Whether the file system refuses the operation, rather than that it failed."""
    return error.errno in _REFUSALS


def disk_error(
    error: OSError, what: str, *, rights_hint: str = "check the rights of that file and its folder"
) -> Optional[AmlctlError]:
    """The error for what a disk, a limit or missing rights refuse; None for everything else.

    `what` is the thing that could not be read or written; it begins the message and may be empty.
    """
    begin = f"{what}: " if what else ""
    if isinstance(error, UnfitFile):
        return SettingsError(f"{error.filename}: {error.strerror}", hint=_again("move it away"))
    if error.errno in FULL:
        disk = _disk_of(error, what)
        reason = "no space left on the disk" if error.errno == errno.ENOSPC else "the quota of the disk is used up"
        where = f" mounted at {disk}" if disk else ""
        is_out_of_inodes = error.errno == errno.ENOSPC and disk != "" and _is_out_of_inodes(disk)
        reason = "no room for one more file (inodes) on the disk" if is_out_of_inodes else reason
        look = f" (df {'-i' if is_out_of_inodes else '-h'} {shlex.quote(disk)})" if disk else ""
        return ServiceUnavailable(f"{begin}{reason}{where}", hint=_again(f"make room{look}"))
    if error.errno == errno.EROFS:
        rights_hint = _again("mount it for writing")
    if error.errno in _FORBIDDEN:
        return RightsError(f"{begin}{os.strerror(error.errno).lower()}", hint=rights_hint)
    if error.errno in _OF_THE_DISK:
        reason, hint = _OF_THE_DISK[error.errno]
        return ServiceUnavailable(f"{begin}{reason}", hint=hint)
    if error.errno in _OF_A_NAME:
        reason, hint = _OF_A_NAME[error.errno]
        return SettingsError(f"{begin}{reason}", hint=hint)
    return limit_error(error, what)


def failing_disk(error: OSError, what: str) -> Optional[ServiceUnavailable]:
    """Like `disk_error`, but None also for what is wrong with that one file: its rights or its name."""
    found = disk_error(error, what)
    return found if isinstance(found, ServiceUnavailable) else None


def sending_error(error: OSError, path: Path) -> AmlctlError:
    """Of a file that is sent: a Conflict only if it was removed or replaced since it was hashed."""
    return disk_error(error, str(path)) or changed_while_sent(path, f": {error.strerror or error}")


def changed_while_sent(path: Path, why: str = "") -> Conflict:
    return Conflict(f"{path} changed while it was sent{why}", hint=AGAIN)


def limit_error(error: BaseException, what: str) -> Optional[AmlctlError]:
    """The error for a limit of this process or machine: open files, threads, memory; None for everything else."""
    if isinstance(error, MemoryError):
        number = errno.ENOMEM
    elif isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        number = errno.EAGAIN
    elif isinstance(error, OSError) and error.errno is not None:
        number = error.errno
    else:
        return None
    if number not in _OF_A_LIMIT:
        return None
    reason, hint = _OF_A_LIMIT[number]
    return ServiceUnavailable(f"{what}: {reason}" if what else reason, hint=hint)


def _is_out_of_inodes(disk: str) -> bool:
    try:
        found = os.statvfs(disk)
    except OSError:
        return False
    return found.f_files > 0 and found.f_favail == 0


def _disk_of(error: OSError, what: str) -> str:
    """Where the full disk is mounted; empty where the error does not tell."""
    named = error.filename2 or error.filename or (what if what.startswith("/") else "")
    if not named or not isinstance(named, (str, bytes, os.PathLike)):
        return ""
    path = os.path.abspath(os.fsdecode(named))
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path
