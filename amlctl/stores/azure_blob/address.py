"""Store URLs of Azure Blob Storage: `https://ACCOUNT.blob.core.windows.net/CONTAINER[/PREFIX]`, or path style
`http://127.0.0.1:10000/ACCOUNT/CONTAINER[/PREFIX]` for Azurite and for hosts whose name has no account."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

from amlctl.azure_access.connections import bracketed, is_host, is_ip
from amlctl.errors import SettingsError

DEFAULT_PREFIX = "amlctl/"
_CONTAINER = re.compile(r"(?=.{3,63}\Z)[a-z0-9]+(?:-[a-z0-9]+)*|\$web|\$root")
_ACCOUNT = re.compile(r"[A-Za-z0-9_-]+")
_SIGN = r"(?:\b|%26|%3f)sig(?:=|%3d)"
_SIGNATURE = re.compile(rf"(?i){_SIGN}")
_LOGIN = re.compile(r"(?s)(?<=://).*@")
"""Up to the last @: a password may have any character, including those that end a host."""
_TOKEN = re.compile(rf"(?is)[?#].*|[^/]*{_SIGN}.*")
_IN_URL = str.maketrans({"%": "%25", "?": "%3F", "#": "%23"})
_UNFIT = re.compile(r"[\\\x00-\x1f\x7f-\x9f\ufffe\uffff]|\.(?=/|\Z)")
"""The service replaces a backslash by `/`, drops a dot at the end of a part, and refuses the others or cannot list
them; Azurite accepts some. Source:
https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata"""
_MAX_NAME = 1024
_LONGEST_OWN = 128
"""Characters that names of packs, objects and runs need; names of datasets and files may be longer."""
_EXAMPLE = "https://ACCOUNT.blob.core.windows.net/CONTAINER/PREFIX"
_Wrong = Callable[..., SettingsError]
"""Makes the error for a URL, from what is wrong and a hint."""


@dataclass(frozen=True)
class BlobAddress:
    """A container and the prefix of every key; `prefix` is empty or ends with `/`."""

    is_https: bool
    host: str
    port: int
    account: str
    is_path_style: bool
    container: str
    prefix: str

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        scheme, usual = ("https", 443) if self.is_https else ("http", 80)
        return f"{scheme}://{bracketed(self.host)}" + ("" if self.port == usual else f":{self.port}")

    @property
    def account_url(self) -> str:
        return self.origin + (f"/{self.account}" if self.is_path_style else "")

    @property
    def url(self) -> str:
        """As people write it; `parse_address` returns the same address."""
        return f"{self.account_url}/{self.container}/{self.prefix.translate(_IN_URL)}".rstrip("/")

    @property
    def container_path(self) -> str:
        return (f"/{self.account}" if self.is_path_style else "") + f"/{self.container}"

    def blob_path(self, key: str) -> str:
        """Percent-encoded path of a value. Raises SettingsError for a name that a blob cannot have."""
        try:
            name = (self.prefix + key).encode()
        except UnicodeEncodeError as error:
            raise SettingsError(
                f"{key!r} cannot be the name of a blob: it is not valid UTF-8",
                hint="rename the file, or name it in .amlctlignore",
            ) from error
        if found := _UNFIT.search(name.decode()):
            what = "a dot at the end of a part" if found.group() == "." else repr(found.group())
            raise SettingsError(
                f"{key!r} cannot be the name of a blob: {what} is not preserved",
                hint="rename the file, or name it in .amlctlignore",
            )
        if len(self.prefix) + len(key) > _MAX_NAME:
            raise SettingsError(
                f"{key!r} is longer than the {_MAX_NAME} characters that a blob's name may have",
                hint="choose a shorter path, or name it in .amlctlignore",
            )
        return f"{self.container_path}/{quote(name, safe='/~!$()*,;=@:')}"


def parse_address(url: str) -> tuple[BlobAddress, str]:
    """The address, and the SAS token in the URL or an empty text. Raises SettingsError."""

    def wrong(what: str, hint: str = _EXAMPLE) -> SettingsError:
        return SettingsError(f"store {without_secrets(url)!r} {what}", hint=hint)

    parts, names = _split(url, wrong)
    host, port = _host(parts, wrong)
    is_path_style = port not in (None, 80, 443) or "." not in host or is_ip(host)
    given = f"{parts.scheme}://{parts.netloc}"
    if not is_path_style:
        account = host.split(".", 1)[0]
    elif names:
        account, *names = names
    else:
        raise wrong("has neither account nor container", f"{given}/ACCOUNT/CONTAINER/PREFIX")
    if not _ACCOUNT.fullmatch(account):
        raise wrong(f"has an invalid account {account!r}")
    if not names:
        raise wrong("has no container", f"{given}{f'/{account}' if is_path_style else ''}/CONTAINER/PREFIX")
    container, *rest = names
    if not _CONTAINER.fullmatch(container):
        raise wrong(f"has an invalid container {container!r}", "3 to 63 lower-case letters, digits and single hyphens")
    prefix = _prefix(rest, wrong)
    if parts.query and "sig" not in parse_qs(parts.query):
        raise wrong("has a query that is not a SAS token", f"{_EXAMPLE}?sv=…&sig=…, or without the query")
    is_https = parts.scheme == "https"
    address = BlobAddress(is_https, host, port or (443 if is_https else 80), account, is_path_style, container, prefix)
    return address, parts.query


def _split(url: str, wrong: _Wrong) -> tuple[SplitResult, list[str]]:
    """Its parts, and the names in its path."""
    try:
        parts = urlsplit(url)
        names = [unquote(part, errors="strict") for part in parts.path.split("/") if part]
    except ValueError as error:
        raise wrong("is not a URL") from error
    if "@" in parts.netloc:
        raise wrong("has a login", f"{_EXAMPLE}, and the key in AZURE_STORAGE_KEY, or az login")
    if parts.fragment:
        raise wrong("has a fragment", "write %23 for a # in the prefix")
    if _SIGNATURE.search(parts.path):
        raise wrong("has a SAS token in its path", f"write ? before it: {_EXAMPLE}?sv=…&sig=…")
    return parts, names


def _host(parts: SplitResult, wrong: _Wrong) -> tuple[str, int | None]:
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise wrong("has an invalid port") from error
    if port == 0:
        raise wrong("has an invalid port")
    if not host:
        raise wrong("has no host")
    if not is_host(host):
        raise wrong(f"has an invalid host {host!r}")
    if parts.scheme != "https" and not _is_near(host):
        raise wrong("would send keys and data unencrypted over the network", f"https://{parts.netloc}{parts.path}")
    return host, port


def _prefix(names: Sequence[str], wrong: _Wrong) -> str:
    """That of every key, from the names below the container."""
    if sum(len(part) + 1 for part in names) + _LONGEST_OWN > _MAX_NAME:
        raise wrong(
            f"has a prefix of more than {_MAX_NAME - _LONGEST_OWN} characters",
            f"a blob's name has at most {_MAX_NAME}, and amlctl needs some of them below the prefix",
        )
    if any(part.endswith(".") or not part.isprintable() for part in names):
        raise wrong(f"has an invalid prefix {'/'.join(names)!r}")
    return "/".join(names) + "/" if names else DEFAULT_PREFIX


def without_secrets(url: str) -> str:
    """The URL to show: without login, query, fragment, and a SAS token that lacks its `?`."""
    return _TOKEN.sub("", _LOGIN.sub("…@", url))


def _is_near(host: str) -> bool:
    """This machine, or a private network, where an emulator may use plain http."""
    return ipaddress.ip_address(host).is_private if is_ip(host) else "." not in host.removesuffix(".")
