"""Failures of the Qdrant client, mapped to ours once, whether they come by REST, by gRPC or from its local mode."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import grpc
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from ..errors import CodeIndexError, IndexExistsError, IndexNotFoundError, IndexUnavailableError

__all__ = ["client_errors"]

_BY_STATUS: dict[int, type[CodeIndexError]] = {404: IndexNotFoundError, 409: IndexExistsError}
_BY_CODE: dict[grpc.StatusCode, type[CodeIndexError]] = {
    grpc.StatusCode.NOT_FOUND: IndexNotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: IndexExistsError,
    grpc.StatusCode.INTERNAL: IndexUnavailableError,
    grpc.StatusCode.UNAVAILABLE: IndexUnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: IndexUnavailableError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: IndexUnavailableError,
}


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
            f"{what}: the server can't be reached ({exc}); check its address and state"
        ) from exc
    except ResourceExhaustedResponse as exc:
        raise IndexUnavailableError(
            f"{what}: the server is overloaded ({exc}); try again later", float(exc.retry_after_s)
        ) from exc
    except UnexpectedResponse as exc:
        status = exc.status_code or 0
        hint = "; check the API key" if status in (401, 403) else ""
        text = (exc.content or b"").decode("utf-8", "replace")[:300]
        message = f"{what}: the server answered {status} {exc.reason_phrase} {text}{hint}"
        if status == 429 or status >= 500:
            raise IndexUnavailableError(message, _retry_after(exc)) from exc
        raise _BY_STATUS.get(status, CodeIndexError)(message) from exc
    except grpc.RpcError as exc:
        code = exc.code() if isinstance(exc, grpc.Call) else None
        details = exc.details() if isinstance(exc, grpc.Call) else str(exc)
        hint = (
            "; check the API key"
            if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
            else ""
        )
        kind = CodeIndexError if code is None else _BY_CODE.get(code, CodeIndexError)
        raise kind(f"{what}: the server answered {code} {details}{hint}") from exc
    except (ApiException, NotImplementedError) as exc:
        raise CodeIndexError(f"{what}: {exc}") from exc
    except ValueError as exc:
        # The client's local mode raises nothing more telling.
        if "ollection" not in str(exc):
            raise
        kind = IndexNotFoundError if "not found" in str(exc) else CodeIndexError
        raise (IndexExistsError if "already exists" in str(exc) else kind)(f"{what}: {exc}") from exc


def _retry_after(answer: UnexpectedResponse) -> float | None:
    """Seconds of a Retry-After header; a date, which servers may send too, counts as none."""
    try:
        return max(0.0, float(answer.headers["retry-after"]))
    except (KeyError, TypeError, ValueError):
        return None
