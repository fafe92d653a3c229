"""Load a data frame or any Arrow table into an index, and get codes and hits back as Arrow tables.

    python examples/arrow_tables.py

A polars or pandas data frame, a DuckDB relation, or a Hugging Face dataset takes the place of `catalog` as it is.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from compressae_qdrant import EdgeIndex, Retriever, TrainConfig, ingest, load_sample, open_source, train
from compressae_qdrant.search import hits_to_arrow

SMALL = TrainConfig(latents=256, k=16, steps=20, rounds=3, round_items=1024, encoder_steps=5)
ITEMS = 1000


def main() -> None:
    sample = load_sample()
    embeddings = sample.embeddings[:ITEMS]
    catalog = pa.table({
        "id": sample.ids[:ITEMS],
        "embedding": pa.FixedSizeListArray.from_arrays(embeddings.ravel(), embeddings.shape[1]),
        "title": [payload["title"] for payload in sample.payloads[:ITEMS]],
    })  # fmt: skip
    model = train(embeddings, SMALL)
    codes = model.encode(embeddings).to_arrow(sample.ids[:ITEMS])
    print("Codes:", ", ".join(f"{field.name} {field.type}" for field in codes.schema))
    with TemporaryDirectory() as folder, EdgeIndex.create(Path(folder) / "index", model) as index:
        ingest(open_source(catalog, identity="sample"), model, index)
        hits = hits_to_arrow(Retriever(model, index).search_batch(embeddings[:2], limit=3))
    for hit in hits.to_pylist():
        print(f"{hit['query']} {hit['rank']} {hit['score']:.3f} {hit['id']}: {hit['payload']['title']}")


if __name__ == "__main__":
    main()
