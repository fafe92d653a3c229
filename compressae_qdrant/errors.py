"""Every error that this package raises on purpose.

Catch `CompresSAEError` for all of them::

    CompresSAEError
    ├── InvalidInputError (ValueError)      an argument or an array is unusable as given
    │   ├── DimensionError                  the number of dimensions differs from the model's
    │   └── InvalidCodeError                a code is empty, not finite, or out of range
    ├── ConfigError (ValueError)            settings contradict each other or are out of range
    ├── ModelFileError                      a saved model or checkpoint is damaged, foreign or too new
    ├── ModelMismatchError                  an index was built by another model
    ├── SourceError                         a catalog can't be read as described
    │   └── RowError                        one row of it is malformed; carries the row number
    ├── CodeIndexError                      the index refused or failed an operation
    │   ├── IndexNotFoundError              nothing is there
    │   ├── IndexExistsError                something is there already
    │   ├── IndexUnavailableError           the server can't be reached, or the shard is in use
    │   └── UnsupportedFilterError          the engine can't evaluate this filter
    ├── VerificationError                   what was built is not fit to go live
    ├── IngestError                         an ingestion stopped; says what is in and how to go on
    └── MissingExtraError (ImportError)     an optional dependency is not installed; names the extra

A message says what was given, what was expected and what to do. An error of a library underneath is mapped once,
with the original as its cause.
"""

from __future__ import annotations

__all__ = [
    "CodeIndexError",
    "CompresSAEError",
    "ConfigError",
    "DimensionError",
    "IndexExistsError",
    "IndexNotFoundError",
    "IndexUnavailableError",
    "IngestError",
    "InvalidCodeError",
    "InvalidInputError",
    "MissingExtraError",
    "ModelFileError",
    "ModelMismatchError",
    "RowError",
    "SourceError",
    "UnsupportedFilterError",
    "VerificationError",
]


class CompresSAEError(Exception):
    """Base of every error raised on purpose by this package."""


class InvalidInputError(CompresSAEError, ValueError):
    """An argument or an array is unusable as given."""


class DimensionError(InvalidInputError):
    """The number of dimensions differs from the model's."""


class InvalidCodeError(InvalidInputError):
    """A code is empty, not finite, has repeated latents, or names a latent that does not exist."""


class ConfigError(CompresSAEError, ValueError):
    """Settings contradict each other or are out of range."""


class ModelFileError(CompresSAEError):
    """A saved model, code file or checkpoint is damaged, foreign, or written by a newer version."""


class ModelMismatchError(CompresSAEError):
    """An index was built by another model than the one it is used with."""


class SourceError(CompresSAEError):
    """A catalog can't be read as described."""


class RowError(SourceError):
    """One row of a catalog is malformed.

    `row` is its number, counted from 0 over the whole source.
    """

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row

    def __reduce__(self) -> tuple[type[RowError], tuple[str, int]]:
        return type(self), (str(self), self.row)


class CodeIndexError(CompresSAEError):
    """An index refused or failed an operation."""


class IndexNotFoundError(CodeIndexError):
    """There is no index where one was expected."""


class IndexExistsError(CodeIndexError):
    """There already is an index where a new one was to be created."""


class IndexUnavailableError(CodeIndexError):
    """The server can't be reached, or another process holds the shard.

    `retry_after` is how many seconds the server asked to be left alone, if it did.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnsupportedFilterError(CodeIndexError):
    """The engine can't evaluate this filter."""


class VerificationError(CompresSAEError):
    """What was built is not fit to go live: items are missing, or recall is too low."""


class IngestError(CompresSAEError):
    """An ingestion stopped before its end; the message says what is in and how to go on."""


class MissingExtraError(CompresSAEError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""
