"""What Azure's SDKs use of a transport and of its answers, beyond the documented interface of azure-core.

Each of these is a place where another version of an SDK could break the transport in `azure_access/`. The package
index's oldest versions that `pyproject.toml` allows are tried by `tests/contract/oldest_sdks.py`.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from azure.core import MatchConditions, PipelineClient
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError, ServiceResponseError
from azure.core.pipeline import Pipeline
from azure.core.pipeline.policies import ContentDecodePolicy, HttpLoggingPolicy, NetworkTraceLoggingPolicy
from azure.core.rest import HttpRequest
from azure.storage.blob import BlobBlock, ContainerClient

from amlctl.azure_access.retry import Retries, RetryPolicy
from amlctl.azure_access.transport import Transport
from tests.support.azurite import Azurite


@pytest.fixture
def transport() -> Iterator[Transport]:
    made = Transport("blob store", {})
    yield made
    made.close()


def _retry(transport: Transport) -> RetryPolicy:
    retries = Retries("blob store", 3, lambda _: None)
    return RetryPolicy(retries, transport, host_source="test", reason=lambda answer: str(answer.status_code))


@pytest.fixture
def container(azurite: Azurite, transport: Transport) -> ContainerClient:
    client = ContainerClient(
        azurite.url,
        azurite.new_container(),
        credential={"account_name": azurite.account, "account_key": azurite.key},
        transport=transport,
        retry_policy=_retry(transport),
    )
    client.create_container()
    return client


def test_lists_read_the_location_mode_of_an_answer(container: ContainerClient) -> None:
    for name in ("a", "b", "c"):
        container.upload_blob(name, name.encode(), metadata={"content_id": name})
    assert list(container.list_blob_names(results_per_page=2)) == ["a", "b", "c"]
    found = {blob.name: (blob.size, blob.metadata["content_id"]) for blob in container.list_blobs(include=["metadata"])}
    assert found == {"a": (1, "a"), "b": (1, "b"), "c": (1, "c")}


def test_blocks_conditions_and_properties(container: ContainerClient) -> None:
    blob = container.get_blob_client("large")
    for number in range(2):
        blob.stage_block(f"{number:060}", b"%d" % number * 5, length=5)
    blob.commit_block_list([BlobBlock(f"{number:060}") for number in range(2)], metadata={"content_id": "x"})
    committed, waiting = blob.get_block_list("all")
    assert ([one.id for one in committed], waiting) == ([f"{number:060}" for number in range(2)], [])
    seen = blob.get_blob_properties()
    assert (seen.size, seen.metadata) == (10, {"content_id": "x"})
    with pytest.raises(ResourceExistsError):
        blob.upload_blob(b"other")
    with pytest.raises(HttpResponseError) as caught:
        blob.upload_blob(b"other", etag='"other"', match_condition=MatchConditions.IfNotModified)
    assert caught.value.status_code == 412
    with pytest.raises(ResourceNotFoundError) as missing:
        container.get_blob_client("missing").get_blob_properties()
    assert getattr(missing.value, "error_code", "") == "BlobNotFound"


def test_policies_of_azure_core_read_an_answer(azurite: Azurite, transport: Transport) -> None:
    """Its body for logs and for documents, both at debug level and without."""
    policies: list[Any] = [ContentDecodePolicy(), _retry(transport), NetworkTraceLoggingPolicy(logging_enable=True)]
    client = PipelineClient(azurite.url, pipeline=Pipeline(transport, [*policies, HttpLoggingPolicy()]))
    answer = client.send_request(HttpRequest("GET", f"{azurite.url}/nothing/here"))
    assert answer.status_code in (400, 403, 404)
    assert answer.text().lstrip("\ufeff").startswith("<?xml")
    with pytest.raises(HttpResponseError) as caught:
        answer.raise_for_status()
    assert caught.value.response is answer


def test_an_attempt_that_was_lost_counts_also_if_the_next_one_cannot_connect() -> None:
    """A kept connection ends without an answer, and so does the service for a moment: it may have acted."""
    answers = iter([b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b""])
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    def serve() -> None:
        line, _ = listener.accept()
        with line:
            for answer in answers:
                received = b""
                while not received.endswith(b"\r\n\r\n1"):  # the body may come alone
                    received += line.recv(65536)
                listener.close()  # no other connection is accepted after the first answer
                line.sendall(answer)

    server = threading.Thread(target=serve)
    server.start()
    transport = Transport("test", {})
    put = HttpRequest("PUT", f"http://127.0.0.1:{port}/a", content=b"1")
    assert transport.send(put).status_code == 200
    with pytest.raises(ServiceResponseError):
        transport.send(put)
    server.join()
    transport.close()
