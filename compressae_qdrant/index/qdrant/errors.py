"""Errors of qdrant-client, by REST, by gRPC or from its local mode, as errors of this package."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import grpc
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from ...errors import (
    CodeIndexError,
    ExactCountError,
    IndexExistsError,
    IndexNotFoundError,
    IndexUnavailableError,
    RequestTooLargeError,
    UnsupportedFilterError,
)

__all__ = ["client_errors"]

_BY_STATUS: dict[int, type[CodeIndexError]] = {404: IndexNotFoundError, 409: IndexExistsError}
_BY_CODE: dict[grpc.StatusCode, type[CodeIndexError]] = {
    grpc.StatusCode.NOT_FOUND: IndexNotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: IndexExistsError,
    grpc.StatusCode.INTERNAL: IndexUnavailableError,
    grpc.StatusCode.UNAVAILABLE: IndexUnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: IndexUnavailableError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: IndexUnavailableError,
    # A replica that is not ready yet; by REST it is a 500.
    grpc.StatusCode.FAILED_PRECONDITION: IndexUnavailableError,
    # Errors of proxies and broken streams.
    grpc.StatusCode.ABORTED: IndexUnavailableError,
    grpc.StatusCode.CANCELLED: IndexUnavailableError,
    grpc.StatusCode.UNKNOWN: IndexUnavailableError,
}
_TEMPORARY_STATUSES = (408, 429)
"""Statuses that are worth a retry, besides 5xx. Qdrant answers 408 after a timeout of its own."""

_CODES_OF_SIZE = (
    grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.INVALID_ARGUMENT,
)  # fmt: skip
_TOO_LARGE = re.compile(
    r"larger than (max|allowed|limit|rate limiter)|too large|split your request|\\?\"(upsert|update) limit",
    re.IGNORECASE,
)
"""What Qdrant, gRPC and proxies say of a request above their limit, if not by status 413."""


_UNINDEXED = re.compile(
    r"Index required but not found for \\?\"(.+?)\\?\"(?: of one of the following types: \[([^\]]*)\])?"
)
"""What Qdrant says of a filter on a field without a payload index, in JSON or as plain text."""
_QUERY_LIMIT = re.compile(r"Limit exceeded .* for \\?\"limit\\?\"")


@contextlib.contextmanager
def client_errors(action: str, collection: str, options: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Raise errors of this package in place of the client's.

    Args:
        action: what is done to the collection, for the message: "search", "upsert into".
        collection: name of the collection.
        options: `init_options` of the client, from which errors name the server.

    Raises:
        IndexUnavailableError: the server can't be reached, is overloaded, or failed inside.
        IndexNotFoundError: there is no such collection.
        IndexExistsError: there is one already.
        RequestTooLargeError: the server accepts no request of this size.
        UnsupportedFilterError: strict mode forbids a filter on a field without a payload index.
        CodeIndexError: the server or the client refused for another reason.
    """
    what = f"can't {action} collection {collection!r}"
    server = f"the server{_at(options)}"
    try:
        yield
    except ResponseHandlingException as exc:
        raise IndexUnavailableError(
            f"{what}: {server} can't be reached or its answer can't be read ({exc}); check its address and state"
        ) from exc
    except ResourceExhaustedResponse as exc:
        raise IndexUnavailableError(
            f"{what}: {server} is overloaded ({exc}); try again later", float(exc.retry_after_s)
        ) from exc
    except QdrantException as exc:  # a 429 whose Retry-After is not a whole number
        seconds = _seconds(str(exc).rpartition("integer: ")[2])
        raise IndexUnavailableError(f"{what}: {server} is overloaded ({exc}); try again later", seconds) from exc
    except UnexpectedResponse as exc:
        status = exc.status_code or 0
        hint = "; check the API key" if status in (401, 403) else ""
        text = (exc.content or b"").decode("utf-8", "replace")[:300]
        message = f"{what}: {server} answered {status} {exc.reason_phrase} {text}{hint}"
        if status == 400:
            _raise_if_unindexed(what, collection, text, exc)
            _raise_if_inexact_only(message, text, exc)
        if status == 413 or (status in (400, 429) and _TOO_LARGE.search(text)):
            raise RequestTooLargeError(f"{message}; {_smaller(text)}") from exc
        if status in _TEMPORARY_STATUSES or status >= 500:
            raise IndexUnavailableError(message, _seconds(exc.headers.get("retry-after"))) from exc
        raise _BY_STATUS.get(status, CodeIndexError)(message + _hint(text)) from exc
    except grpc.RpcError as exc:
        has_code = isinstance(exc, (grpc.Call, grpc.aio.AioRpcError))  # an async error is not a grpc.Call
        code, details = (exc.code(), exc.details()) if has_code else (None, exc)
        hint = (
            "; check the API key"
            if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
            else ""
        )
        if code == grpc.StatusCode.INVALID_ARGUMENT:
            _raise_if_unindexed(what, collection, str(details), exc)
            _raise_if_inexact_only(f"{what}: {server} answered {code} {details}", str(details), exc)
        if code in _CODES_OF_SIZE and _TOO_LARGE.search(str(details)):
            raise RequestTooLargeError(f"{what}: {server} answered {code} {details}; {_smaller(str(details))}") from exc
        kind = CodeIndexError if code is None else _BY_CODE.get(code, CodeIndexError)
        message = f"{what}: {server} answered {code} {details}{hint}{_hint(str(details))}"
        if kind is IndexUnavailableError:
            raise IndexUnavailableError(message, _seconds(_metadata(exc).get("retry-after"))) from exc
        raise kind(message) from exc
    except (ApiException, NotImplementedError) as exc:  # the local mode raises NotImplementedError
        raise CodeIndexError(f"{what}: {exc}") from exc
    except ValueError as exc:
        # The client's local mode raises nothing more specific.
        if "ollection" not in str(exc) and not str(exc).startswith("Wrong input"):
            raise
        kind = IndexNotFoundError if "not found" in str(exc) else CodeIndexError
        raise (IndexExistsError if "already exists" in str(exc) else kind)(f"{what}: {exc}") from exc


def _at(options: Mapping[str, Any] | None) -> str:
    """Host and port of a client with these `init_options`, as ` at host:port`; empty for the local mode."""
    if not options or options.get("path") or options.get("location") == ":memory:":
        return ""
    url = options.get("url") or options.get("location") or ""
    parsed = urlsplit(url if "//" in url else f"//{url}")
    host = options.get("host") or (f"[{parsed.hostname}]" if ":" in (parsed.hostname or "") else parsed.hostname)
    rest_port = parsed.port or options.get("port")
    port = options.get("grpc_port") if options.get("prefer_grpc") else rest_port
    return f" at {host or 'localhost'}{f':{port}' if port else ''}"


def _metadata(exc: Any) -> dict[str, str]:
    """What a gRPC server sent after its answer."""
    return {name: value for name, value in exc.trailing_metadata() or () if isinstance(value, str)}


def _hint(text: str) -> str:
    """What to do about a limit of strict mode that a search or a count exceeds."""
    if _QUERY_LIMIT.search(text):
        return "; ask for fewer hits or candidates (limit=, prefetch=), or raise max_query_limit of strict mode"
    return ""


def _raise_if_inexact_only(message: str, text: str, exc: Exception) -> None:
    """Raise the error of an exact count or search that strict mode forbids.

    Raises:
        ExactCountError: the text of the server's answer is of this kind.
    """
    if "exact search disabled" in text.lower():
        raise ExactCountError(
            f"{message}; count with exact=False, or allow it by search_allow_exact of strict mode"
        ) from exc


def _smaller(text: str) -> str:
    """What to do about a request that a server refuses with this text as too large."""
    setting = ""
    if "rate limiter" in text:
        setting = "read_rate_limit" if "Read rate" in text else "write_rate_limit"
    elif _TOO_LARGE.search(text) and "limit" in text and ("upsert" in text or "update" in text):
        setting = "upsert_max_batchsize"
    return f"send fewer items at a time{f' ({setting} of the strict mode of the collection)' if setting else ''}"


def _raise_if_unindexed(what: str, collection: str, text: str, exc: Exception) -> None:
    """Raise the error of a filter on a field without a payload index, which strict mode forbids.

    Raises:
        UnsupportedFilterError: the text of the server's answer is of this kind.
    """
    found = _UNINDEXED.search(text)
    if found is None:
        return
    field, kinds = found[1], found[2] or "keyword"
    kind = kinds.partition(",")[0].strip()
    raise UnsupportedFilterError(
        f"{what}: the filter tests the field {field!r}, which has no payload index of a kind that the test needs "
        f"({kinds}), and the strict mode of the collection forbids that; create one, for example by "
        f"client.create_payload_index({collection!r}, {field!r}, {kind!r}) of qdrant-client, or for a new index by "
        f"IndexSettings(payload_fields={{{field!r}: {kind!r}}})"
    ) from exc


def _seconds(retry_after: str | None) -> float | None:
    """Seconds to wait by a Retry-After header, which is a number or a date."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            until = parsedate_to_datetime(retry_after)
        except ValueError:
            return None
        seconds = (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None
