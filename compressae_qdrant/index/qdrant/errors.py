"""Failures of the Qdrant client, mapped to ours once, whether they come by REST, by gRPC or from its local mode."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import grpc
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from ...errors import (
    CodeIndexError,
    IndexExistsError,
    IndexNotFoundError,
    IndexUnavailableError,
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
    # A replica that isn't ready yet: by REST the same is a 500.
    grpc.StatusCode.FAILED_PRECONDITION: IndexUnavailableError,
    # What proxies and broken streams come as.
    grpc.StatusCode.ABORTED: IndexUnavailableError,
    grpc.StatusCode.CANCELLED: IndexUnavailableError,
    grpc.StatusCode.UNKNOWN: IndexUnavailableError,
}
_FOR_A_WHILE = (408, 429)
"""Besides 5xx; 408 is how Qdrant says that it took too long itself."""


@contextlib.contextmanager
def client_errors(doing: str, collection: str) -> Iterator[None]:
    """Raise ours in place of the client's.

    Raises:
        IndexUnavailableError: the server can't be reached, is overloaded, or failed inside.
        IndexNotFoundError: there is no such collection.
        IndexExistsError: there is one already.
        CodeIndexError: anything else that the server or the client refused.
    """
    what = f"can't {doing} collection {collection!r}"
    try:
        yield
    except ResponseHandlingException as exc:
        raise IndexUnavailableError(
            f"{what}: the server can't be reached or its answer can't be read ({exc}); check its address and state"
        ) from exc
    except ResourceExhaustedResponse as exc:
        raise IndexUnavailableError(
            f"{what}: the server is overloaded ({exc}); try again later", float(exc.retry_after_s)
        ) from exc
    except QdrantException as exc:  # of a 429 whose Retry-After is no whole number
        seconds = _seconds(str(exc).rpartition("integer: ")[2])
        raise IndexUnavailableError(f"{what}: the server is overloaded ({exc}); try again later", seconds) from exc
    except UnexpectedResponse as exc:
        status = exc.status_code or 0
        hint = "; check the API key" if status in (401, 403) else ""
        text = (exc.content or b"").decode("utf-8", "replace")[:300]
        message = f"{what}: the server answered {status} {exc.reason_phrase} {text}{hint}"
        if status in _FOR_A_WHILE or status >= 500:
            raise IndexUnavailableError(message, _seconds(exc.headers.get("retry-after"))) from exc
        raise _BY_STATUS.get(status, CodeIndexError)(message) from exc
    except grpc.RpcError as exc:
        tells = isinstance(exc, (grpc.Call, grpc.aio.AioRpcError))  # the async one is no grpc.Call
        code, details = (exc.code(), exc.details()) if tells else (None, exc)
        hint = (
            "; check the API key"
            if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
            else ""
        )
        kind = CodeIndexError if code is None else _BY_CODE.get(code, CodeIndexError)
        raise kind(f"{what}: the server answered {code} {details}{hint}") from exc
    except (ApiException, NotImplementedError) as exc:  # the latter is how the local mode says that it lacks something
        raise CodeIndexError(f"{what}: {exc}") from exc
    except ValueError as exc:
        # The client's local mode raises nothing more telling.
        if "ollection" not in str(exc):
            raise
        kind = IndexNotFoundError if "not found" in str(exc) else CodeIndexError
        raise (IndexExistsError if "already exists" in str(exc) else kind)(f"{what}: {exc}") from exc


def _seconds(retry_after: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or as the date until then."""
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
