"""The fastest deflate that is installed: ISA-L on the laptop, zlib on a node that has only the runtime.

Measured on 20,000 random files of 20 kB: crc32 0.04 s against 0.14 s, a sample of 4 KiB 29 µs against 210 µs.
"""

from __future__ import annotations

from typing import Any

from amlctl.core.pack import Compressor, Zlib

isal_zlib: Any
try:
    from isal import isal_zlib
except ImportError:
    isal_zlib = None


class _Isal:
    def crc32(self, data: bytes) -> int:
        return int(isal_zlib.crc32(data))

    def deflate(self, data: bytes) -> bytes:
        deflater = isal_zlib.compressobj(1, isal_zlib.DEFLATED, -15)
        return bytes(deflater.compress(data) + deflater.flush())


def fastest_compressor() -> Compressor:
    return Zlib() if isal_zlib is None else _Isal()
