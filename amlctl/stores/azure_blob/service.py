"""The verbs that the store needs, by azure-storage-blob, or by `direct.py` to read a value, and for keys that come in
thousands.

A verb may be sent twice when an answer is lost; the callers' conditions make that safe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

from azure.core import MatchConditions
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.pipeline.policies import BearerTokenCredentialPolicy

from amlctl.azure_access.http import MemoryResponse
from amlctl.azure_access.retry import Retries, RetryPolicy
from amlctl.azure_access.transport import MAX_IN_MEMORY_BYTES, Read, Transport
from amlctl.core.events import EventSink, null_sink
from amlctl.core.store_keys import area_of
from amlctl.errors import AmlctlError, NotFound, RightsError, SettingsError
from amlctl.stores.azure_blob.address import BlobAddress
from amlctl.stores.azure_blob.answer import DAMAGED_ON_THE_WAY, BlobAnswer, not_blob_storage
from amlctl.stores.azure_blob.blocks import Block
from amlctl.stores.azure_blob.credentials import Credential
from amlctl.stores.azure_blob.direct import VERSION, BlobBody, DirectRequests
from amlctl.stores.azure_blob.refusals import refusal
from amlctl.stores.contract import Entry, OnBytes, unobserved

if TYPE_CHECKING:
    from xml.etree import ElementTree

    from azure.storage.blob import BlobClient, ContainerClient

NAME = "blob store"
_TRIES = 6
_META = "x-ms-meta-"
FOLDER_MARK = "hdi_isfolder"
"""Metadata of an empty blob that stands for a folder, by mounts and hierarchical accounts."""
_ONE_REQUEST = 256 << 20
"""Larger than any request: the store cuts values into blocks, not the SDK."""
_PAGE = 5000
_T = TypeVar("_T")

ANY: Mapping[str, Any] = {}
"""Conditions of a write for the SDK: none; only a new value; only instead of that version."""
NEW: Mapping[str, Any] = {"match_condition": MatchConditions.IfMissing}


def unchanged(etag: str) -> Mapping[str, Any]:
    return {"etag": etag, "match_condition": MatchConditions.IfNotModified}


class BlobService:
    """Thread-safe. Statuses of 400 and above are errors unless `accept` names them."""

    def __init__(
        self,
        address: BlobAddress,
        credential: Credential,
        transport: Transport,
        *,
        sleep: Callable[[float], object] | None = None,
        tell: EventSink = null_sink,
    ) -> None:
        """`tell` gets an event for each retry, from any thread."""
        self._address = address
        self._credential = credential
        self._transport = transport
        self._made: dict[str, tuple[object, Any]] = {}
        self._retries = Retries(NAME, _TRIES, sleep or transport.sleep, tell)

    def blob_url(self, key: str) -> str:
        """URL of a value as the source of a copy; it includes the credential, so it is never shown."""
        query = self._credential.current().source_query()
        return f"{self._address.origin}{self._address.blob_path(key)}" + (f"?{query}" if query else "")

    def get(
        self,
        key: str,
        *,
        accept: Iterable[int] = (),
        max_bytes: int = MAX_IN_MEMORY_BYTES,
        on_bytes: OnBytes = unobserved,
    ) -> BlobAnswer:
        """The whole value. Raises IntegrityError above `max_bytes`."""
        return self._checked(self._direct.blob("GET", key, max_bytes=max_bytes, on_bytes=on_bytes), key, accept)

    def get_range(
        self,
        key: str,
        start: int,
        size: int | None,
        etag: str = "",
        *,
        accept: Iterable[int] = (),
        sink: Callable[[Read], int] | None = None,
        on_bytes: OnBytes = unobserved,
    ) -> BlobAnswer:
        """`size` bytes from `start` (None: all), of the version `etag` where that is given; into the `sink`, if any."""
        headers = {"range": f"bytes={start}-" + ("" if size is None else str(start + size - 1))}
        if etag:
            headers["if-match"] = etag
        return self._checked(self._direct.blob("GET", key, headers, sink=sink, on_bytes=on_bytes), key, accept)

    def properties(self, key: str, *, accept: Iterable[int] = ()) -> BlobAnswer:
        if _is_one_of_many(key):
            return self._checked(self._direct.blob("HEAD", key), key, accept)
        return self._ask(key, accept, self._blob(key).get_blob_properties)

    def put_blob(
        self,
        key: str,
        body: BlobBody,
        condition: Mapping[str, Any],
        metadata: Mapping[str, str] | None = None,
        *,
        accept: Iterable[int] = (),
    ) -> BlobAnswer:
        """A value in one request."""
        md5 = body.md5_header()
        if _is_one_of_many(key):
            headers = {
                "x-ms-blob-type": "BlockBlob",
                "content-type": "application/octet-stream",
                "content-md5": md5,
                **_headers(condition, metadata or {}),
            }
            return self._checked(self._direct.blob("PUT", key, headers, body), key, accept)
        return self._ask(
            key,
            accept,
            self._blob(key).upload_blob,
            body.whole(),
            length=body.size_bytes,
            overwrite=True,
            metadata=dict(metadata or {}),
            headers={"content-md5": md5},
            may_go_on=body.may_go_on,
            on_bytes=body.on_bytes,
            **condition,
        )

    def put_block(self, key: str, identity: str, body: BlobBody) -> BlobAnswer:
        headers = {"content-md5": body.md5_header()}
        options = {"length": body.size_bytes, "headers": headers, "on_bytes": body.on_bytes}
        return self._ask(key, (), self._blob(key).stage_block, identity, body, **options)

    def block_lists(self, key: str) -> tuple[list[Block], list[Block], str | None]:
        """Committed and uncommitted blocks, and the ETag (None without committed blocks)."""
        lists: list[Any] = []

        def act(**options: Any) -> None:
            lists[:] = self._blob(key).get_block_list("all", **options)

        answer = self._ask(key, (404,), act)
        if answer.status == 404:
            return [], [], None
        if not lists:
            raise not_blob_storage(answer.host, "a list of blocks that cannot be read")
        committed, waiting = ([Block(str(one.id), int(one.size)) for one in blocks] for blocks in lists)
        # Uncommitted blocks alone are not a value yet and have no ETag.
        is_value = "etag" in answer.headers and "last-modified" in answer.headers
        return committed, waiting, answer.headers["etag"] if is_value else None

    def commit(
        self,
        key: str,
        identities: Sequence[str],
        condition: Mapping[str, Any],
        metadata: Mapping[str, str],
        *,
        md5: bytes = b"",
        accept: Iterable[int] = (),
        may_go_on: Callable[[], None] | None = None,
    ) -> BlobAnswer:
        """Make the value of the blocks with the text ids `identities`; `md5` is that of the whole value."""
        from azure.storage.blob import BlobBlock, ContentSettings

        settings = ContentSettings(content_type="application/octet-stream", content_md5=bytearray(md5) if md5 else None)
        return self._ask(
            key,
            accept,
            self._blob(key).commit_block_list,
            [BlobBlock(one) for one in identities],
            content_settings=settings,
            metadata=dict(metadata),
            may_go_on=may_go_on,
            **condition,
        )

    def copy(
        self,
        source: str,
        key: str,
        condition: Mapping[str, Any],
        metadata: Mapping[str, str],
        *,
        source_etag: str = "",
        accept: Iterable[int] = (),
    ) -> BlobAnswer:
        """Copy the value of `source` (of the version `source_etag`, if given) to `key` within the service, with its
        metadata unless `metadata` is given."""
        # Only the SDK signs with the account key; a copy then needs no token for its source.
        if _is_one_of_many(key) and not isinstance(self._credential.current().for_sdk, AzureNamedKeyCredential):
            headers = {"x-ms-copy-source": self.blob_url(source), **_headers(condition, metadata)}
            return self._checked(self._direct.blob("PUT", key, headers), key, accept)
        copy = self._blob(key).start_copy_from_url
        if source_etag:
            condition = {**condition, **{f"source_{name}": value for name, value in unchanged(source_etag).items()}}
        return self._ask(key, accept, copy, self.blob_url(source), metadata=dict(metadata), **condition)

    def delete(self, key: str, *, is_folder: bool = False) -> None:
        """A missing value is not an error. Raises Conflict for a folder that is not empty."""
        if is_folder or _is_one_of_many(key):
            headers = {} if is_folder else {"x-ms-delete-snapshots": "include"}
            self._checked(self._direct.blob("DELETE", key, headers), key, (404,))
        else:
            self._ask(key, (404,), self._blob(key).delete_blob, delete_snapshots="include")

    def create_container(self) -> None:
        """Raises RightsError."""
        try:
            answer = self._ask("", (409,), self._container.create_container)
        except (RightsError, NotFound) as error:
            raise RightsError(
                f"the container {self._address.container} of account {self._address.account} does not exist, and "
                "these credentials may not create it",
                hint=f"az storage container create --account-name {self._address.account} "
                f"--name {self._address.container} --auth-mode login",
            ) from error
        if answer.code == "ContainerBeingDeleted":
            raise self.error(answer, "")

    def values(self, prefix: str, metadata: str = "") -> Iterator[Entry]:
        """Below the prefix, which follows the store's; `metadata` is the name under which they have content ids."""
        prefix = self._address.prefix + prefix

        def page(marker: str) -> BlobAnswer:
            if metadata:  # many thousands of mirrored files
                query = {"comp": "list", "prefix": prefix, "maxresults": str(_PAGE), "include": "metadata"}
                if marker:
                    query["marker"] = marker
                return self._checked(self._direct.container(query), "", (404,))
            # Names only: the SDK takes 1.0 s to make models of 5,000 blobs; reading the page itself takes 0.1 s.
            names = self._container.list_blob_names
            return self._page(partial(names, name_starts_with=prefix, results_per_page=_PAGE), marker)

        for answer, root in _pages(page):
            for blob in root.iter("Blob"):
                if not _is_folder(blob):
                    yield self._listed(answer, blob, metadata)

    def folders(self, prefix: str) -> Sequence[str]:
        """Names directly below the prefix that have blobs below them."""
        prefix = self._address.prefix + prefix
        walk = partial(self._container.walk_blobs, prefix, results_per_page=_PAGE, delimiter="/")
        pages = _pages(lambda marker: self._page(walk, marker))
        names = [_text_of(one) for _, root in pages for one in root.iterfind("Blobs/BlobPrefix/Name")]
        return [name[len(prefix) :].rstrip("/") for name in names]

    def _page(self, listing: Callable[..., Any], marker: str) -> BlobAnswer:
        return self._ask("", (404,), lambda **options: next(listing(**options).by_page(marker or None)))

    def recommit(self, key: str) -> None:
        """Drop uncommitted blocks of another program, whose ids may be any bytes: the SDK accepts only text."""
        answer = self._checked(self._direct.blob("GET", key, None, query=_BLOCKS), key, ())
        root = answer.document("BlockList")
        listed = "".join(f"<Latest>{one.text}</Latest>" for one in root.iterfind("CommittedBlocks/Block/Name"))
        body = BlobBody([f'<?xml version="1.0" encoding="utf-8"?><BlockList>{listed}</BlockList>'.encode()])
        headers = {"content-type": "application/xml", _META + "copied_from": "unfinished"}
        self._checked(self._direct.blob("PUT", key, headers, body, {"comp": "blocklist"}), key, ())

    def error(self, answer: BlobAnswer, key: str) -> AmlctlError:
        """A refusal in words."""
        return refusal(answer, key, self._address, self._credential)

    def _listed(self, answer: BlobAnswer, blob: ElementTree.Element, metadata: str) -> Entry:
        size = answer.number(blob.findtext("Properties/Content-Length", "0"))
        modified_at = answer.seconds(blob.findtext("Properties/Last-Modified", ""))
        value = blob.findtext(f"Metadata/{metadata}", "") if metadata else ""
        return Entry(_text_of(blob.find("Name"))[len(self._address.prefix) :], size, modified_at, value)

    def _ask(self, key: str, accept: Iterable[int], act: Callable[..., Any], *sent: Any, **options: Any) -> BlobAnswer:
        """One call of the SDK. The result is read from the answer itself, so that one which the SDK cannot read is our
        error that names the host."""
        last: list[MemoryResponse] = []
        try:
            act(*sent, on_answer=last.append, **options)
        except AmlctlError:
            raise
        except Exception:
            if not last:
                raise
        return self._checked(BlobAnswer.of(last[-1]), key, accept)

    def _checked(self, answer: BlobAnswer, key: str, accept: Iterable[int]) -> BlobAnswer:
        if answer.status < 400 or answer.status in accept:
            return answer
        raise self.error(answer, key)

    def _blob(self, key: str) -> BlobClient:
        self._address.blob_path(key)  # raises for a name that a blob cannot have
        return self._container.get_blob_client(self._address.prefix + key)

    @property
    def _container(self) -> ContainerClient:
        """The SDK's client."""
        return self._client("sdk", self._credential.current().for_sdk, self._client_of)

    @property
    def _direct(self) -> DirectRequests:
        def make(policy: Any) -> DirectRequests:
            return DirectRequests(self._address, self._transport, self._retry_policy(), policy)

        return self._client("direct", self._credential.current().policy, make)

    def _client(self, kind: str, credential: Any, make: Callable[[Any], _T]) -> _T:
        """Made once, and again after a change of the credential, such as a new SAS token."""
        made = self._made.get(kind)
        if made is None or made[0] is not credential:
            self._check_line()
            self._made[kind] = made = (credential, make(credential))
        client: _T = made[1]
        return client

    def _client_of(self, credential: Any) -> ContainerClient:
        from azure.storage.blob import ContainerClient

        return ContainerClient(
            self._address.account_url,
            self._address.container,
            credential=credential,
            transport=self._transport,
            retry_policy=self._retry_policy(),
            api_version=VERSION,
            max_single_put_size=_ONE_REQUEST,
        )

    def _check_line(self) -> None:
        """Raises SettingsError if a login would be readable on the network; the SDK refuses it as well."""
        if not self._address.is_https and isinstance(self._credential.current().policy, BearerTokenCredentialPolicy):
            raise SettingsError(
                f"the store {self._address.url} cannot use a login: tokens require HTTPS",
                hint="use https://, or set AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN",
            )

    def _retry_policy(self) -> RetryPolicy:
        return RetryPolicy(
            self._retries,
            self._transport,
            host_source="storage account in the store's URL",
            reason=lambda response: BlobAnswer.of(response).reason(),
            codes=(DAMAGED_ON_THE_WAY,),
            renew=lambda request: self._credential.renew(),
        )


_BLOCKS = {"comp": "blocklist", "blocklisttype": "all"}


def _is_one_of_many(key: str) -> bool:
    return area_of(key).has_thousands


def _pages(page: Callable[[str], BlobAnswer]) -> Iterator[tuple[BlobAnswer, ElementTree.Element]]:
    """Of a listing, each by the marker in the page before. A container that does not exist has no page."""
    marker = ""
    while (answer := page(marker)).status != 404:
        root = answer.document("EnumerationResults")
        yield answer, root
        if not (marker := root.findtext("NextMarker", "")):
            return


def _text_of(name: ElementTree.Element | None) -> str:
    """A name with a character that XML cannot have is quoted."""
    text = "" if name is None else name.text or ""
    return unquote(text) if name is not None and name.get("Encoded") == "true" else text


def _is_folder(blob: ElementTree.Element) -> bool:
    """Of a hierarchical namespace; or the empty blob of a mount, where metadata was asked for."""
    if blob.findtext("Properties/ResourceType") == "directory":
        return True
    return any(one.tag.lower() == FOLDER_MARK and one.text == "true" for one in blob.iterfind("Metadata/*"))


def _headers(condition: Mapping[str, Any], metadata: Mapping[str, str]) -> dict[str, str]:
    headers = {_META + name: value for name, value in metadata.items()}
    if condition.get("match_condition") is MatchConditions.IfMissing:
        return {**headers, "if-none-match": "*"}
    return {**headers, "if-match": str(condition["etag"])} if "etag" in condition else headers
