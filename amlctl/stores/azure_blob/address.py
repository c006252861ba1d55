"""Store URLs of Azure Blob Storage: `https://ACCOUNT.blob.core.windows.net/CONTAINER[/PREFIX]`, or path style
`http://127.0.0.1:10000/ACCOUNT/CONTAINER[/PREFIX]` for Azurite and for hosts that have no name of an account."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import parse_qs, quote, unquote, urlsplit

from amlctl.errors import SettingsError

DEFAULT_PREFIX = "amlctl/"
_CONTAINER = re.compile(r"[a-z0-9](?:-?[a-z0-9]){2,62}|\$web|\$root")
_MAX_NAME = 1024
_EXAMPLE = "https://ACCOUNT.blob.core.windows.net/CONTAINER/PREFIX"


@dataclass(frozen=True)
class BlobAddress:
    """A container and the prefix that every key gets; `prefix` is empty or ends with `/`."""

    is_https: bool
    host: str
    port: int
    account: str
    is_path_style: bool
    container: str
    prefix: str

    @property
    def account_url(self) -> str:
        scheme, usual = ("https", 443) if self.is_https else ("http", 80)
        port = "" if self.port == usual else f":{self.port}"
        return f"{scheme}://{self.host}{port}" + (f"/{self.account}" if self.is_path_style else "")

    @property
    def url(self) -> str:
        return f"{self.account_url}/{self.container}/{self.prefix}".rstrip("/")

    @property
    def container_path(self) -> str:
        return (f"/{self.account}" if self.is_path_style else "") + f"/{self.container}"

    def blob_path(self, key: str) -> str:
        """Percent-encoded path of a value. Raises SettingsError where a blob cannot have that name."""
        try:
            name = (self.prefix + key).encode()
        except UnicodeEncodeError as error:
            raise SettingsError(
                f"{key!r} cannot be the name of a blob: it is not valid UTF-8",
                hint="rename the file, or use --layout pack, which takes every name",
            ) from error
        if len(self.prefix) + len(key) > _MAX_NAME:
            raise SettingsError(
                f"{key!r} is longer than the {_MAX_NAME} characters that a blob's name may have",
                hint="use --layout pack, which takes every name, or a shorter path",
            )
        return f"{self.container_path}/{quote(name, safe='/~!$()*,;=@:')}"


def parse_address(url: str) -> tuple[BlobAddress, str]:
    """The address and the SAS token that the URL carries (empty where it has none). Raises SettingsError."""
    parts = urlsplit(url)
    shown = url.split("?", 1)[0]
    if parts.username or parts.password or parts.fragment:
        raise SettingsError(f"store {parts.scheme}://{parts.hostname}/… carries a login", hint=_EXAMPLE)
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise SettingsError(f"store {shown!r} has no valid port", hint=_EXAMPLE) from error
    if not host:
        raise SettingsError(f"store {shown!r} names no host", hint=_EXAMPLE)
    names = [unquote(part) for part in parts.path.split("/") if part]
    is_path_style = port not in (None, 80, 443) or "." not in host or _is_ip(host)
    if is_path_style and names:
        account, *names = names
    else:
        account = host.split(".", 1)[0]
    if not names:
        raise SettingsError(f"store {shown!r} names no container", hint=_EXAMPLE)
    container, *rest = names
    if not _CONTAINER.fullmatch(container):
        raise SettingsError(
            f"store {shown!r}: {container!r} cannot be a container's name",
            hint="3 to 63 lower-case letters, digits and single hyphens",
        )
    if any(part in (".", "..") for part in rest):
        raise SettingsError(f"store {shown!r} has a {'/'.join(rest)!r} that is no prefix", hint=_EXAMPLE)
    if parts.query and "sig" not in parse_qs(parts.query):
        raise SettingsError(f"store {shown!r} has a query that is no SAS token", hint=_EXAMPLE)
    prefix = "/".join(rest) + "/" if rest else DEFAULT_PREFIX
    is_https = parts.scheme == "https"
    address = BlobAddress(is_https, host, port or (443 if is_https else 80), account, is_path_style, container, prefix)
    return address, parts.query


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
