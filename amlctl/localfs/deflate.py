"""The fastest deflate that is installed: ISA-L on the laptop, zlib on a node that has only the runtime.

Measured on 20,000 random files of 20 kB: crc32 0.04 s against 0.14 s, a sample of 4 KiB 29 µs against 210 µs. A
manifest of 20,000 lines: 4 ms against zlib's 23 ms at level 3, and 6 % smaller.
"""

from __future__ import annotations

import struct
from typing import Any

from amlctl.core.pack import Bytes, Compressor, Zlib

isal_zlib: Any
try:
    from isal import isal_zlib
except ImportError:
    isal_zlib = None


GZIP_HEAD = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
"""RFC 1952: deflate, no name, no time, no system. Equal bytes give equal files."""


class _Isal:
    def crc32(self, data: Bytes) -> int:
        return int(isal_zlib.crc32(data))

    def deflate(self, data: Bytes) -> bytes:
        deflater = isal_zlib.compressobj(1, isal_zlib.DEFLATED, -15)
        return bytes(deflater.compress(data) + deflater.flush())


def fastest_compressor() -> Compressor:
    return Zlib() if isal_zlib is None else _Isal()


def gzip_bytes(data: bytes) -> bytes:
    """A gzip file (RFC 1952) of one member."""
    compressor = fastest_compressor()
    ending = struct.pack("<II", compressor.crc32(data), len(data) & 0xFFFFFFFF)
    return GZIP_HEAD + compressor.deflate(data) + ending
