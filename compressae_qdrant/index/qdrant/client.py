"""The part of qdrant-client that this package uses, as one interface that its sync and its async client both have."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self, TypeAlias, TypeVar

from qdrant_client import grpc, models

from ..ids import PointId
from ..settings import ShardKey

__all__ = [
    "Answer", "Client", "GrpcPoints", "RestAnswer", "RestApis", "RestHits", "RestPoints", "RestSearch",
    "Transport",
]  # fmt: skip

T = TypeVar("T")

Answer: TypeAlias = T | Awaitable[T]
"""What a method of a sync or an async client returns."""


@dataclass(frozen=True)
class Transport:
    """How a client reaches its collections."""

    kind: Literal["local", "rest", "grpc"] = "local"
    """"local" is the client's emulation of a server in this process."""
    timeout: float = 5
    """Seconds that a gRPC call may take. The client's lower layer, unlike its upper one, has no timeout of its own."""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """The transport of a client, from its `init_options`."""
        if options.get("location") == ":memory:" or options.get("path"):
            return cls("local")
        return cls("grpc" if options.get("prefer_grpc") else "rest", options.get("timeout") or cls.timeout)


class Client(Protocol):
    """Methods of `QdrantClient` and `AsyncQdrantClient`.

    The clients take any keyword argument (`**kwargs`) and refuse unknown ones when they are called. This interface has
    no `**kwargs`, so that a type checker finds misspelled arguments; a test compares its signatures with the clients'.
    """

    @property
    def http(self) -> RestApis: ...
    @property
    def grpc_points(self) -> GrpcPoints: ...

    def create_collection(
        self,
        *,
        collection_name: str,
        vectors_config: Mapping[str, models.VectorParams],
        sparse_vectors_config: Mapping[str, models.SparseVectorParams],
        optimizers_config: models.OptimizersConfigDiff,
        shard_number: int,
        sharding_method: models.ShardingMethod | None,
        replication_factor: int,
        write_consistency_factor: int,
        metadata: dict[str, Any],
    ) -> Answer[bool]: ...

    def update_collection(
        self,
        *,
        collection_name: str,
        optimizers_config: models.OptimizersConfigDiff | None = None,
        vectors_config: dict[str, models.VectorParamsDiff] | None = None,
        sparse_vectors_config: Mapping[str, models.SparseVectorParams] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> Answer[bool]: ...

    def create_shard_key(self, *, collection_name: str, shard_key: ShardKey) -> Answer[bool]: ...

    def create_payload_index(
        self,
        *,
        collection_name: str,
        field_name: str,
        field_schema: models.PayloadSchemaType | models.KeywordIndexParams | models.TextIndexParams,
        wait: bool,
    ) -> Answer[models.UpdateResult]: ...

    def create_vector_name(
        self,
        *,
        collection_name: str,
        vector_name: str,
        vector_name_config: models.SparseVectorNameConfig | models.DenseVectorNameConfig,
        wait: bool,
    ) -> Answer[models.UpdateResult]: ...

    def delete_collection(self, *, collection_name: str) -> Answer[bool]: ...

    def collection_exists(self, *, collection_name: str) -> Answer[bool]: ...

    def get_collection(self, *, collection_name: str) -> Answer[models.CollectionInfo]: ...

    def collection_cluster_info(self, *, collection_name: str) -> Answer[models.CollectionClusterInfo]: ...

    def get_optimizations(self, *, collection_name: str) -> Answer[models.OptimizationsResponse]: ...

    def get_aliases(self) -> Answer[models.CollectionsAliasesResponse]: ...
    def info(self) -> Answer[models.VersionInfo]: ...

    def upsert(
        self,
        *,
        collection_name: str,
        points: Sequence[models.PointStruct],
        wait: bool,
        shard_key_selector: ShardKey | None,
        update_mode: models.UpdateMode | None,
    ) -> Answer[models.UpdateResult]: ...

    def update_vectors(
        self,
        *,
        collection_name: str,
        points: Sequence[models.PointVectors],
        wait: bool,
        shard_key_selector: ShardKey | None,
    ) -> Answer[models.UpdateResult]: ...

    def delete(
        self,
        *,
        collection_name: str,
        points_selector: models.PointIdsList | models.FilterSelector,
        wait: bool,
        shard_key_selector: ShardKey | None,
    ) -> Answer[models.UpdateResult]: ...

    def count(
        self,
        *,
        collection_name: str,
        count_filter: models.Filter | None,
        exact: bool,
        shard_key_selector: ShardKey | None,
    ) -> Answer[models.CountResult]: ...

    def retrieve(
        self,
        *,
        collection_name: str,
        ids: Sequence[PointId],
        with_payload: bool | list[str],
        with_vectors: bool | list[str],
        shard_key_selector: ShardKey | None,
    ) -> Answer[list[models.Record]]: ...

    def scroll(
        self,
        *,
        collection_name: str,
        limit: int,
        offset: Any,
        with_payload: bool | list[str],
        shard_key_selector: ShardKey | None,
        scroll_filter: models.Filter | None = None,
        with_vectors: bool | list[str] = False,
    ) -> Answer[tuple[list[models.Record], Any]]: ...

    def query_batch_points(
        self, *, collection_name: str, requests: Sequence[models.QueryRequest]
    ) -> Answer[list[models.QueryResponse]]: ...


class RestApis(Protocol):
    """The client's lower layer over REST."""

    @property
    def points_api(self) -> RestPoints: ...
    @property
    def search_api(self) -> RestSearch: ...


class RestPoints(Protocol):
    """`http.points_api` of a client."""

    def upsert_points(
        self, *, collection_name: str, wait: bool, point_insert_operations: models.PointInsertOperations
    ) -> Answer[RestAnswer]: ...


class RestAnswer(Protocol):
    """Answer to a write by `RestPoints`. The client generates a numbered class for it."""

    @property
    def result(self) -> models.UpdateResult | None: ...


class RestSearch(Protocol):
    """`http.search_api` of a client."""

    def query_batch_points(
        self, *, collection_name: str, query_request_batch: models.QueryRequestBatch
    ) -> Answer[RestHits]: ...


class RestHits(Protocol):
    """Answer to a query by `RestSearch`."""

    @property
    def result(self) -> list[models.QueryResponse] | None: ...


class GrpcPoints(Protocol):
    """`grpc_points` of a client."""

    def Upsert(  # noqa: N802 (the client's name)
        self, *, request: grpc.UpsertPoints, timeout: float
    ) -> Answer[grpc.PointsOperationResponse]: ...

    def QueryBatch(  # noqa: N802 (the client's name)
        self, *, request: grpc.QueryBatchPoints, timeout: float
    ) -> Answer[grpc.QueryBatchResponse]: ...
