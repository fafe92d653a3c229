"""Measure searches under a memory limit, starting with nothing of the index in memory.

    python scripts/bench_memory.py                                      # the shipped sample, a quickly trained model
    python scripts/bench_memory.py text.npy --model model --items 1000000

Builds an index with codes, navigation vectors, graph and originals, and one of TurboQuant (2 bit, HNSW, originals on
disk), both in the embedded engine. Then each way of searching runs in a process of its own in a control group whose
memory, page cache included, is limited to what that process needs without an index and 100, 50 or 25% of the index's
files. The page cache is dropped before each run. "Read" is what a query reads from the disk.

The limit needs root and a writable control group for memory (version 1 or 2), and dropping the page cache needs root.
Where one of them is missing, the script says so and measures without it.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as qe

SHARES = (1.0, 0.5, 0.25)
LIMIT = 10
LOAD = 4096
GROUPS = Path("/sys/fs/cgroup")
SPARE = 32 << 20
"""Bytes of the limit for the buffers of a search."""


@dataclass(frozen=True)
class Way:
    """One way of searching: its name, the folder of its index, and the stages of a request."""

    name: str
    folder: Path
    stages: Sequence[dict[str, Any]]
    """From the first search to the last: vector name, kind, candidates, and for HNSW `ef` and `rescore`."""


def request(stages: Sequence[dict[str, Any]], vectors: dict[str, Any]) -> qe.QueryRequest:
    """The request of a query, whose vectors are given for each stage."""
    prefetches: list[qe.Prefetch] = []
    query: Any = None
    options: dict[str, Any] = {}
    for number, stage in enumerate(stages):
        if query is not None:
            prefetches = [qe.Prefetch(limit=stages[number - 1]["limit"], query=query, prefetches=prefetches, **options)]
        value, using = vectors[stage["query"]], stage["using"]
        vector = qe.SparseVector(*value) if stage["sparse"] else value
        if stage.get("exact"):
            query = qe.Query.RecommendSumScores(qe.RecommendQuery(positives=[vector], negatives=[]), using=using)
        else:
            query = qe.Query.Nearest(vector, using=using)
        options = {}
        if "ef" in stage:
            quantization = qe.QuantizationSearchParams(rescore=stage["rescore"], oversampling=stage.get("oversampling"))
            options["params"] = qe.SearchParams(hnsw_ef=stage["ef"], quantization=quantization)
    codes = ["code"] if stages[-1].get("fetch") else False
    return qe.QueryRequest(
        limit=stages[-1]["limit"], query=query, prefetches=prefetches, with_payload=False, with_vector=codes, **options
    )


def ranked(points: Sequence[Any], full: tuple[list[int], list[float]]) -> list[int]:
    """Ids of fetched candidates, by the dot products of their codes with a query vector of all latents."""
    values = np.array(full[1])
    scores = [values[point.vector["code"].indices] @ point.vector["code"].values for point in points]
    return [int(points[row].id) for row in np.argsort(scores)[::-1]]


def child(spec: dict[str, Any]) -> dict[str, Any]:
    """Search in this process, which joins the control group first; returns times, reads and the ids found."""
    queries = json.loads(Path(spec["queries"]).read_text())
    if spec["group"]:
        Path(spec["group"]).write_text(str(os.getpid()))
    shard = qe.EdgeShard.load(spec["folder"])
    times, found = [], []
    before, faults = _read_bytes(), resource.getrusage(resource.RUSAGE_SELF).ru_majflt
    started = time.perf_counter()
    for vectors in queries:
        built = request(spec["stages"], vectors)
        begun = time.perf_counter()
        points = shard.query(built)
        fetched = spec["stages"][-1].get("fetch")
        found.append(ranked(points, vectors["full"]) if fetched else [int(point.id) for point in points])
        times.append(time.perf_counter() - begun)
    seconds = time.perf_counter() - started
    return {
        "times": times, "found": found, "seconds": seconds, "read": _read_bytes() - before,
        "faults": resource.getrusage(resource.RUSAGE_SELF).ru_majflt - faults,
    }  # fmt: skip


def _read_bytes() -> int:
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["read_bytes"])


class Limit:
    """A control group for memory, if this machine lets us make one."""

    def __init__(self) -> None:
        self.problem = ""
        version2 = (GROUPS / "cgroup.controllers").exists()
        self._file = "memory.max" if version2 else "memory.limit_in_bytes"
        self._folder = (GROUPS if version2 else GROUPS / "memory") / f"compressae-bench-{os.getpid()}"
        try:
            if version2:
                (GROUPS / "cgroup.subtree_control").write_text("+memory")
            self._folder.mkdir()
        except OSError as exc:
            self.problem = f"no memory limit, because no control group can be made ({exc})"

    def set(self, size: int) -> str:
        """Limit the group; returns the file that a process writes its id to, or "" without a group."""
        if self.problem:
            return ""
        (self._folder / self._file).write_text(str(size))
        return str(self._folder / "cgroup.procs")

    def close(self) -> None:
        """Delete the group."""
        if not self.problem:
            self._folder.rmdir()


def drop_page_cache() -> str:
    """Empty the page cache; returns why that failed, or ""."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError as exc:
        return f"the page cache is warm, because it cannot be dropped ({exc})"
    return ""


def bytes_of(folder: Path) -> int:
    """Bytes that the files of an index take on disk."""
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())


def run(way: Way, queries: Path, size: int, limit: Limit) -> dict[str, Any] | None:
    """Run a child under a limit; None if it did not survive."""
    spec = {"queries": str(queries), "folder": str(way.folder), "stages": list(way.stages), "group": limit.set(size)}
    done = subprocess.run([sys.executable, __file__, "--child", json.dumps(spec)], capture_output=True, check=False)
    if done.returncode:
        return None
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def base_bytes(queries: Path) -> int:
    """Memory of a child without an index."""
    code = (
        "import json, sys; from pathlib import Path; import numpy, qdrant_edge\n"
        "queries = json.loads(Path(sys.argv[1]).read_text())\n"
        "print([line for line in open('/proc/self/status') if line.startswith('VmRSS')][0].split()[1])"
    )
    return 1024 * int(
        subprocess.run([sys.executable, "-c", code, str(queries)], capture_output=True, check=True).stdout
    )


def build(folder: Path, vectors: Any, model: Any, items: int, count: int) -> tuple[list[Way], Path, list[list[int]]]:
    """Build both indexes; returns the ways to search them, the file of queries, and the true neighbours."""
    from capacity_data import codes_of, grow

    from compressae_qdrant import EdgeIndex, IndexSettings, Retriever
    from compressae_qdrant.evaluation.baselines import dense_shard, quantisers
    from compressae_qdrant.index.settings import NavigationSettings
    from compressae_qdrant.search.defaults import GraphSizes, graph_sizes
    from compressae_qdrant.vectors import exact_neighbours, unit_rows

    catalog = unit_rows(vectors)
    x = catalog[:items] if items <= len(catalog) else np.asarray(grow(catalog, items, folder / "grown.npy"), np.float32)
    codes = codes_of(model, x, folder / "codes")
    settings = IndexSettings(keep_dense=True, navigation=NavigationSettings())
    with EdgeIndex.create(folder / "ours", model, settings) as index:
        for start in range(0, len(x), LOAD):
            ids = range(start, min(start + LOAD, len(x)))
            index.upsert(ids, codes[start : start + LOAD], dense=x[start : start + LOAD])
        index.optimize()
        own = np.random.default_rng(2026).choice(len(x), min(count, len(x)), replace=False)
        plans = Retriever(model, index)._queries.plans(x[own], LIMIT + 1, {"first_stage": "both"}, len(x))
    turbo = folder / "turboquant"
    turbo.mkdir()
    dense_shard(turbo, x, "Float32", quantisers()["TurboQuant 2 bit"]).close()
    queries = []
    for plan in plans:
        assert plan.first_stage is not None
        assert plan.navigation is not None
        queries.append({
            "first": [plan.first_stage.indices.tolist(), plan.first_stage.values.tolist()],
            "full": [plan.engine_rescoring.indices.tolist(), plan.engine_rescoring.values.tolist()],
            "navigation": plan.navigation.tolist(),
        })  # fmt: skip
    for query, row in zip(queries, x[own], strict=True):
        query["dense"] = row.tolist()
    (folder / "queries.json").write_text(json.dumps(queries))
    graph = {"query": "navigation", "using": "navigation", "sparse": False}
    by_codes, by_originals = graph_sizes(LIMIT), graph_sizes(LIMIT, keep_dense=True)

    def walk(sizes: GraphSizes) -> dict[str, Any]:
        oversampling = (sizes.compared + 0.5) / sizes.candidates
        return graph | {"ef": sizes.ef, "rescore": True, "limit": sizes.candidates, "oversampling": oversampling}

    first = {"query": "first", "using": "code", "sparse": True, "limit": 100}
    rescoring = {"query": "full", "using": "code", "sparse": True, "exact": True, "limit": LIMIT + 1}
    dense = {"query": "dense", "using": "dense", "sparse": False, "limit": LIMIT + 1}
    quantised = dense | {"ef": 200, "rescore": False}
    ways = [
        Way("codes", folder / "ours" / "shard", [first, rescoring]),
        Way("graph, codes", folder / "ours" / "shard", [walk(by_codes) | {"fetch": True}]),
        Way("graph, originals", folder / "ours" / "shard", [walk(by_originals), dense]),
        Way("TurboQuant 2 bit", turbo, [quantised]),
        Way("TurboQuant 2 bit, originals", turbo, [quantised | {"rescore": True, "oversampling": 3.0}]),
    ]
    truth = exact_neighbours(x[own], x, LIMIT, own).tolist()
    np.save(folder / "own.npy", own)
    return ways, folder / "queries.json", truth


def main() -> None:
    if sys.argv[1:2] == ["--child"]:  # which imports neither the package nor torch, whose memory would count
        print(json.dumps(child(json.loads(sys.argv[2]))))
        return
    from bench_data import catalog_arguments, load_catalog, load_or_train

    from compressae_qdrant.metrics import recall

    parser = catalog_arguments(__doc__, count=300)
    parser.add_argument("--items", type=int, help="items, made from the catalog if it has fewer (default: all)")
    parser.add_argument("--work", help="directory of the indexes; default: a temporary one")
    args = parser.parse_args()
    name, vectors = load_catalog(args.vectors)
    print(f"Catalog: {name}")
    model = load_or_train(args.model, vectors)
    limit = Limit()
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        items = args.items or len(vectors)
        ways, queries, truth = build(Path(folder), vectors, model, items, args.count)
        own = np.load(Path(folder) / "own.npy")
        base = base_bytes(queries)
        problems = list(filter(None, [limit.problem, drop_page_cache()]))
        print("\n".join(f"Note: {problem}." for problem in problems))
        print(f"{items:,} items; a process without an index takes {base / 2**20:.0f} MB\n")
        print("| search | files, MB | limit, MB | recall@10 | p50 ms | p95 ms | queries/s | read, KB | page faults |")
        print("|---|---|---|---|---|---|---|---|---|")
        for way in ways:
            files = bytes_of(way.folder)
            for share in SHARES:
                drop_page_cache()
                size = round(base + SPARE + share * files)
                answer = run(way, queries, size, limit)
                head = f"| {way.name} | {files / 2**20:.0f} | {size / 2**20:.0f} ({share:.0%}) |"
                if answer is None:
                    print(f"{head} did not survive | | | | | |", flush=True)
                    continue
                found = [[id for id in ids if id != mine] for ids, mine in zip(answer["found"], own, strict=True)]
                p50, p95 = np.percentile(np.array(answer["times"]) * 1e3, [50, 95])
                count = len(answer["times"])
                print(
                    f"{head} {recall(found, truth, LIMIT).mean():.3f} | {p50:.2f} | {p95:.2f} | "
                    f"{count / answer['seconds']:,.0f} | {answer['read'] / count / 1024:,.0f} | "
                    f"{answer['faults'] / count:,.0f} |",
                    flush=True,
                )
    limit.close()


if __name__ == "__main__":
    main()
