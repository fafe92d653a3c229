"""Locations of indexes: addresses of collections, directories, and the client that is made for an address."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient

from compressae_qdrant import CompresSAE, QdrantIndex
from compressae_qdrant.errors import ConfigError, IndexUnavailableError
from compressae_qdrant.index import create_index, open_index
from compressae_qdrant.index.location import connect

from .support.sink import Sink, serving


def test_an_unreachable_server_by_rest_and_grpc(model: CompresSAE) -> None:
    for location in ("http://localhost:1/items", "grpc://localhost:1/items"):
        with pytest.raises(IndexUnavailableError, match="items"):
            open_index(location, model)


@pytest.mark.parametrize(
    ("location", "complaint"),
    [
        ("http://localhost:6333", "must name one collection"),
        ("grpc://localhost:6334/a/b", "must name one collection.*gRPC has no path prefixes"),
        ("http://localhost:6333/collections/items", "remove '/collections'"),
        ("http://localhost:6333/my#items", "write # as %23"),
        ("http://localhost:6333/%FF", "percent escapes are not UTF-8"),
        ("http://localhost:6333/%2E%2E", "which no collection can have"),
        ("http://localhost:6333/a%00b", "which no collection can have"),
        ("http://localhost:0/items", "has an invalid port"),
        ("http://localhost:70000/items", "has an invalid port"),
        ("http://::1:6333/items", "neither a directory nor|invalid port|brackets"),
        ("http://[::1/items", "in brackets"),
        ("http://[host]/items", "in brackets"),
        ("http://ho st:6333/items", "is not valid"),
        ("localhost:6333/items", "without a scheme; write http://localhost:6333/items"),
        ("[::1]:6333/items", "without a scheme"),
        ("http:/localhost:6333/items", "without a scheme; write http://localhost:6333/items"),
        ("http://localhost:port/items", "has an invalid port"),
        ("ftp://localhost/items", "neither a directory nor"),
        ("https://me:secret@localhost/items", "QDRANT_API_KEY"),
    ],
)
def test_invalid_locations_are_refused(location: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        open_index(location)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("location", "uri", "collection"),
    [
        ("http://host/items", "http://host:6333", "items"),
        ("https://host/items", "https://host:443", "items"),
        ("https://host:6333/items/", "https://host:6333", "items"),
        ("https://host/qdrant/items", "https://host:443/qdrant", "items"),
        ("http://host:80/a/b/items", "http://host:80/a/b", "items"),
        ("http://host/my%20items", "http://host:6333", "my items"),
        ("http://host/my items", "http://host:6333", "my items"),
        ("http://host/100%25%23%D1%82%D0%BE%D0%B2%D0%B0%D1%80%D1%8B", "http://host:6333", "100%#товары"),
        ("http://host/товары", "http://host:6333", "товары"),
        ("http://host/100%", "http://host:6333", "100%"),
        ("http://[2001:db8::1]/items", "http://[2001:db8::1]:6333", "items"),
    ],
)
def test_a_location_as_the_server_and_the_collection(location: str, uri: str, collection: str) -> None:
    client, name = connect(location)
    remote: Any = client._client
    assert (remote.rest_uri, name) == (uri, collection)
    client.close()


def test_the_default_port_of_grpc() -> None:
    for scheme in ("grpc", "grpcs"):
        client, _ = connect(f"{scheme}://host/items")
        assert client.init_options["grpc_port"] == 6334
        client.close()


def test_prefix_and_encoded_name_reach_the_server(model: CompresSAE) -> None:
    sink = Sink()
    with serving(sink) as port, create_index(f"http://127.0.0.1:{port}/qdrant/a%23%25%20%D1%8F", model):
        pass
    assert {path.partition("?")[0].removesuffix("/exists") for _, path, _ in sink.calls} == {
        "/qdrant/collections/a%23%25%20%D1%8F"
    }


def test_a_directory_whose_name_looks_like_an_address(tmp_path: Path, model: CompresSAE) -> None:
    (tmp_path / "host:6333").mkdir()
    with create_index(f"{tmp_path}/host:6333/items", model) as made:
        assert made.count() == 0


@pytest.mark.parametrize("address", ["[::1]:1", "127.0.0.1:1", "localhost:1"])
def test_an_unreachable_server_is_named(address: str) -> None:
    for scheme in ("http", "grpc"):
        with pytest.raises(IndexUnavailableError, match=re.escape(f"the server at {address} ")):
            open_index(f"{scheme}://{address}/items")
    for client in (
        QdrantClient(url=f"http://{address}", check_compatibility=False),
        QdrantClient(f"http://{address}", check_compatibility=False),
    ):
        with pytest.raises(IndexUnavailableError, match=re.escape(f"the server at {address} ")):
            QdrantIndex.open(client, "items")
        client.close()


def test_the_key_warning_is_in_our_words_and_shown_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", "key")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for location in 2 * ("http://warned-of:1/items", "https://other:1/items"):
            connect(location)[0].close()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "sent to http://warned-of:1 without encryption" in record.getMessage()


def test_an_ipv6_address_keeps_its_brackets() -> None:
    for scheme in ("http", "grpc"):
        client, collection = connect(f"{scheme}://[::1]:7000/items")
        assert (collection, client.init_options["host"]) == ("items", "[::1]")
        client.close()
