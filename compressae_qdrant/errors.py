"""Exceptions of this package. `CompresSAEError` is the base class of all of them::

    CompresSAEError
    ├── InvalidInputError (ValueError)      an argument or an array is invalid
    │   ├── DimensionError                  embeddings have another dimension than the model
    │   └── InvalidCodeError                a sparse code is empty, not finite or out of range
    ├── ConfigError (ValueError)            settings are out of range or contradict each other
    ├── ModelFileError                      a saved file is damaged, of another kind, or too new
    ├── ModelMismatchError                  an index or a file belongs to another model
    ├── SourceError                         a catalog cannot be read
    │   └── RowError                        a row of a catalog is malformed; `row` is its number
    ├── CodeIndexError                      the index refused or failed an operation
    │   ├── IndexNotFoundError              the index or an item does not exist
    │   │   └── IndexReplacedError          the index was deleted, or another took its place, after it was opened
    │   ├── IndexExistsError                the index to create already exists
    │   ├── IncompleteIndexError            the creation of the index was not completed; create it again
    │   ├── IndexUnavailableError           the server cannot be reached, or the shard is in use
    │   ├── RequestTooLargeError            the server accepts no request of this size
    │   ├── ExactCountError                 strict mode allows no exact count
    │   └── UnsupportedFilterError          the engine cannot evaluate this filter
    ├── VerificationError                   a new collection failed its checks and was not activated
    ├── IngestError                         an ingestion stopped; the message says how to continue
    └── MissingExtraError (ImportError)     an optional dependency is missing; the message names the extra

A message says what was wrong, what was expected and what to do. An error of an underlying library is converted once and
kept as the cause.
"""

from __future__ import annotations

__all__ = [
    "CodeIndexError",
    "CompresSAEError",
    "ConfigError",
    "DimensionError",
    "ExactCountError",
    "IncompleteIndexError",
    "IndexExistsError",
    "IndexNotFoundError",
    "IndexReplacedError",
    "IndexUnavailableError",
    "IngestError",
    "InvalidCodeError",
    "InvalidInputError",
    "MissingExtraError",
    "ModelFileError",
    "ModelMismatchError",
    "RequestTooLargeError",
    "RowError",
    "SourceError",
    "UnsupportedFilterError",
    "VerificationError",
]


class CompresSAEError(Exception):
    """Base class of the exceptions that this package raises."""


class InvalidInputError(CompresSAEError, ValueError):
    """An argument or an array is invalid."""


class DimensionError(InvalidInputError):
    """The embeddings have a different number of dimensions than the model."""


class InvalidCodeError(InvalidInputError):
    """A sparse code is empty, is not finite, repeats a latent, or has a latent that does not exist."""


class ConfigError(CompresSAEError, ValueError):
    """Settings are out of range or contradict each other."""


class ModelFileError(CompresSAEError):
    """A saved model, code file or checkpoint is damaged, of another kind, or written by a newer version."""


class ModelMismatchError(CompresSAEError):
    """An index or a file belongs to another model than the one in use."""


class SourceError(CompresSAEError):
    """A catalog cannot be read."""


class RowError(SourceError):
    """One row of a catalog is malformed.

    `row` is the number of the row, counted from 0 over the whole source.
    """

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row

    def __reduce__(self) -> tuple[type[RowError], tuple[str, int]]:
        return type(self), (str(self), self.row)


class CodeIndexError(CompresSAEError):
    """An index refused or failed an operation."""


class IndexNotFoundError(CodeIndexError):
    """An index, or an item of an index, does not exist."""


class IndexReplacedError(IndexNotFoundError):
    """An open index is no longer the one that was opened: it was deleted, or another was created in its place."""


class IncompleteIndexError(CodeIndexError):
    """An index lacks a part that its manifest promises, as its creation was not completed.

    Creating it again, with the same model and settings, completes it.
    """


class IndexExistsError(CodeIndexError):
    """An index cannot be created because one already exists at its location."""


class IndexUnavailableError(CodeIndexError):
    """The server cannot be reached, or another process uses the shard.

    `retry_after` is the number of seconds that the server asked clients to wait, or None.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RequestTooLargeError(CodeIndexError):
    """The server accepts no request of this size."""


class ExactCountError(CodeIndexError):
    """The strict mode of a collection allows no exact counts and searches."""


class UnsupportedFilterError(CodeIndexError):
    """The engine cannot evaluate this filter."""


class VerificationError(CompresSAEError):
    """A new collection failed its checks: items are missing, or its recall is too low."""


class IngestError(CompresSAEError):
    """An ingestion stopped early; the message says what was written and how to continue."""


class MissingExtraError(CompresSAEError, ImportError):
    """An optional dependency is not installed; the message names the extra to install."""
