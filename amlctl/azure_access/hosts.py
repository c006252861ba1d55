"""Names of hosts: which can be asked for, and how a URL has them."""

from __future__ import annotations

import ipaddress
import re

_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?")


def is_host(name: str) -> bool:
    """Whether it can be asked for: what cannot is a ValueError of `socket`, not one of the network."""
    return bool(_HOST.fullmatch(name)) or is_ip(name)


def is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def bracketed(host: str) -> str:
    """As a URL has it."""
    return f"[{host}]" if ":" in host else host
