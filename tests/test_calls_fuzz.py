"""Locations, settings and calls with every kind of argument: the right result, or an error of this package; nothing is
left half-made. Seeds that failed are kept as examples."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from compressae_qdrant import CompresSAE, EdgeIndex, IndexSettings, Retriever, TrainConfig
from compressae_qdrant.errors import CompresSAEError, ConfigError
from compressae_qdrant.index import create_index, open_index
from compressae_qdrant.index.address import Address, is_directory, parse_address
from compressae_qdrant.index.manifest import Manifest
from compressae_qdrant.index.settings import NavigationSettings
from compressae_qdrant.model.config import ModelConfig
from compressae_qdrant.search.settings import DEFAULTS

D = 8
ROWS = np.random.default_rng(0).normal(size=(20, D)).astype(np.float32)
_QUICK = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))

_text = st.text(max_size=8)
_surrogates = st.text(st.characters(categories=["Cs"]), min_size=1, max_size=2)
_odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70),
    st.integers(),
    st.floats(),
    _text,
    _surrogates,
    st.binary(max_size=3),
    st.decimals(),
    st.fractions(),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(_text, _text, max_size=2),
    st.sampled_from([object(), len, np.float32(3), np.array(3), np.array([3, 4]), torch.tensor(2), 1 + 2j, Path("x")]),
)


@pytest.fixture(scope="module")
def model() -> CompresSAE:
    torch.manual_seed(0)
    return CompresSAE(ModelConfig(dim=D, latents=32, k=4))


# --- locations

_host = st.sampled_from(
    ["localhost", "example.com", "10.0.0.7", "[::1]", "[2001:db8::7]", "under_score", "xn--nxasmq6b"]
)
_name = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Cn", "Co", "Zl", "Zp", "Cf"]), min_size=1, max_size=8
).filter(lambda name: name.strip() and name not in (".", "..") and name.isprintable())
_prefix = st.lists(
    st.from_regex(r"[a-z0-9]{1,6}", fullmatch=True).filter(lambda part: part != "collections"), max_size=2
)
_addresses = st.builds(
    lambda scheme, host, port, prefix, name: Address(
        scheme, host, port, "" if scheme.startswith("grpc") else "/".join(prefix), name
    ),
    st.sampled_from(["http", "https", "grpc", "grpcs"]),
    _host,
    st.integers(1, 65_535),
    _prefix,
    _name,
)
_locations = st.one_of(
    _text,
    _surrogates,
    _odd,
    st.builds(
        "".join,
        st.lists(
            st.sampled_from(
                [
                    "http",
                    "https",
                    "grpc",
                    ":",
                    "//",
                    "/",
                    "?",
                    "#",
                    "@",
                    "[",
                    "]",
                    "::1",
                    "a",
                    "6333",
                    "99999",
                    "%",
                    "%20",
                    "%ff",
                    "..",
                    ".",
                    "\0",
                    " ",
                    "items",
                    "shard_key=",
                    "&",
                    "é",
                    "\ud800",
                    "\\",
                    "collections",
                    "-1",
                ]
            ),
            max_size=8,
        ),
    ),
)


@_QUICK
@given(_addresses)
def test_an_address_is_read_as_it_was_written(address: Address) -> None:
    path = "/".join(part for part in (address.prefix, quote(address.collection, safe="")) if part)
    assert parse_address(f"{address.server}/{path}") == address


def _check_location(location: Any) -> None:
    try:
        directory = is_directory(location)
        address = None if directory else parse_address(location)
    except ConfigError:
        return
    if address is not None:
        assert 1 <= address.port <= 65_535
        assert address.host
        assert address.collection.strip()
        return
    text = str(location)
    if ".." in text or text.startswith("/") or not text:
        return
    with tempfile.TemporaryDirectory() as folder:
        with pytest.raises(CompresSAEError):
            open_index(f"{folder}/{text}")
        with pytest.raises(CompresSAEError):
            open_index(Path(folder) / text)  # type: ignore[arg-type]
        assert list(Path(folder).iterdir()) == []


@_QUICK
@given(_locations)
@example("\0")
@example("\ud800")
@example("a" * 300)
@example(Path("x"))
def test_any_location(location: Any) -> None:
    _check_location(location)


# --- settings

_kinds: dict[Any, dict[str, Any]] = {
    IndexSettings: {},
    NavigationSettings: {},
    TrainConfig: {},
    ModelConfig: {"dim": 4, "latents": 8, "k": 2},
}
_valid: dict[str, Any] = {
    "datatype": "float16",
    "memory": "cached",
    "navigation": {"dim": 4},
    "payload_fields": {"a": "geo"},
    "scale": "code",
    "shard_keys": ["a", 3],
    "tenant_field": "shop",
    "init": "random",
    "precision": "float32",
    "bits": 1.5,
    "k": 2,
}
_settings = st.sampled_from(list(_kinds)).flatmap(
    lambda kind: st.tuples(
        st.just(kind),
        st.dictionaries(
            st.sampled_from([field.name for field in dataclasses.fields(kind)]),
            _odd | st.sampled_from(list(_valid.values())),
            max_size=3,
        ),
    )
)


def _check_settings(case: tuple[Any, dict[str, Any]]) -> None:
    kind, given_values = case
    try:
        made = kind(**{**_kinds[kind], **given_values})
    except ConfigError:
        return
    again = kind(**json.loads(json.dumps(dataclasses.asdict(made))))
    assert again == made
    if kind is IndexSettings:
        manifest = Manifest("m-1", 8, 4, made)
        assert Manifest.from_json(json.loads(json.dumps(manifest.to_json())), "here").settings == made


@_QUICK
@given(_settings)
def test_any_settings(case: tuple[Any, dict[str, Any]]) -> None:
    _check_settings(case)


def _check_creation(model: CompresSAE, values: dict[str, Any]) -> None:
    """An index is created as a whole, or nothing is left of it."""
    with tempfile.TemporaryDirectory() as folder:
        where = f"{folder}/index"
        try:
            create_index(where, model, IndexSettings(**values)).close()
        except CompresSAEError:
            assert list(Path(folder).iterdir()) == []
            return
        with open_index(where, model) as index:
            assert index.count() == 0
            index.upsert(
                [1],
                model.encode(ROWS[:1], scale=index.settings.scale),
                None,
                ROWS[:1] if index.settings.keep_dense else None,
            )
            assert index.count() == 1


# --- calls

_options = st.dictionaries(
    st.sampled_from(["limit", *DEFAULTS]),
    _odd | st.sampled_from(["codes", "graph", "both", "sparse", "reconstructed", "encoder", "+3", "-1", {"+3": 0.5}]),
    max_size=3,
)
_vectors = st.one_of(
    st.just(ROWS[0]),
    st.lists(st.floats(width=32), max_size=9),
    st.lists(st.floats(-1, 1), min_size=D, max_size=D),
    st.just(ROWS[:2]),
    _odd,
)
_calls = st.tuples(st.sampled_from(["search", "search_batch", "similar_to"]), _vectors, _options)


@pytest.fixture(scope="module")
def retriever(model: CompresSAE, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Retriever]:
    with EdgeIndex.create(tmp_path_factory.mktemp("fuzz") / "index", model, IndexSettings(keep_dense=True)) as index:
        index.upsert(range(20), model.encode(ROWS), [{"n": n} for n in range(20)], ROWS)
        yield Retriever(model, index)


def _check_call(retriever: Retriever, call: tuple[str, Any, dict[str, Any]]) -> None:
    name, query, options = call
    try:
        found: Any = getattr(retriever, name)(query, **options)
    except CompresSAEError:
        return
    for hits in found if name == "search_batch" else [found]:
        assert len(hits) <= int(options.get("limit", 10))
        scores = [hit.score for hit in hits]
        assert scores == sorted(scores, reverse=True)
        assert {hit.id for hit in hits} <= set(range(20))


@_QUICK
@given(_calls)
@example(("search", ROWS[0], {"text": np.array([3, 4])}))
@example(("search", ROWS[0], {"fusion_k": Decimal("sNaN")}))
@example(("search", ROWS[0], {"concepts": {"+3": 1e300}}))
@example(("search", ROWS[0], {"with_codes": 1.0}))
@example(("search", ROWS[0], {"offset": 2**31 - 1, "limit": 1}))
@example(("similar_to", 3, {"limit": 2**31 - 1}))
def test_any_search(retriever: Retriever, call: tuple[str, Any, dict[str, Any]]) -> None:
    _check_call(retriever, call)


_ids = st.integers(-1, 2**65) | _text | st.uuids().map(str) | _odd
_payloads = st.none() | st.dictionaries(
    _text, st.recursive(_odd, lambda inner: st.lists(inner, max_size=2), max_leaves=4), max_size=2
)
_items = st.lists(st.tuples(_ids, _payloads), max_size=3)


def _comparable(payload: Any) -> str:
    """A payload as text. The engine reads numbers from JSON to the last bit or the one before."""
    return json.dumps(json.loads(json.dumps(payload), parse_float=lambda digits: f"{float(digits):.14g}"))


def _check_write(index: EdgeIndex, model: CompresSAE, items: list[tuple[Any, Any]]) -> None:
    ids, payloads = [id for id, _ in items], [payload for _, payload in items]
    before = index.count()
    codes = model.encode(ROWS[: len(items)]) if items else model.encode(ROWS[:1])[:0]
    try:
        index.upsert(ids, codes, payloads)
    except CompresSAEError:
        assert index.count() == before
        return
    assert [_comparable(record.payload) for record in index.retrieve(ids)] == [_comparable(p or {}) for p in payloads]
    index.delete(ids)
    assert index.retrieve(ids) == []


@pytest.fixture(scope="module")
def written(model: CompresSAE, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeIndex]:
    with EdgeIndex.create(tmp_path_factory.mktemp("writes") / "index", model) as index:
        yield index


@_QUICK
@given(_items)
def test_any_write(written: EdgeIndex, model: CompresSAE, items: list[tuple[Any, Any]]) -> None:
    _check_write(written, model, items)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(5), ids=["locations", "settings", "creations", "searches", "writes"])
def test_thousands_of_calls(number: int, retriever: Retriever, written: EdgeIndex, model: CompresSAE) -> None:
    names = [field.name for field in dataclasses.fields(IndexSettings) if field.name in _valid]
    creations = st.sets(st.sampled_from(names), max_size=3).map(lambda chosen: {name: _valid[name] for name in chosen})
    cases: list[tuple[Callable[[Any], None], st.SearchStrategy[Any], int]] = [
        (_check_location, _locations, 1000),
        (_check_settings, _settings, 1500),
        (lambda values: _check_creation(model, values), creations, 50),
        (lambda call: _check_call(retriever, call), _calls, 1000),
        (lambda items: _check_write(written, model, items), _items, 450),
    ]
    check, strategy, examples = cases[number]
    settings(_QUICK, max_examples=examples)(given(strategy)(lambda case: check(case)))()
