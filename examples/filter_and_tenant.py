"""Restrict searches by payload: a filter for one query, or a tenant for all queries of a retriever.

python examples/filter_and_tenant.py
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from qdrant_client import models

from compressae_qdrant import EdgeIndex, IndexSettings, Retriever, TrainConfig, load_sample, train

SMALL = TrainConfig(latents=256, k=16, steps=20, rounds=3, round_items=1024, encoder_steps=5)
ITEMS = 1000


def main() -> None:
    catalog = load_sample()
    model = train(catalog.embeddings[:ITEMS], SMALL)
    payloads = [{**payload, "shop": f"shop-{row % 3}"} for row, payload in enumerate(catalog.payloads[:ITEMS])]
    settings = IndexSettings(payload_fields={"section": "keyword"}, tenant_field="shop")
    with TemporaryDirectory() as folder, EdgeIndex.create(Path(folder) / "index", model, settings) as index:
        index.upsert(catalog.ids[:ITEMS], model.encode(catalog.embeddings[:ITEMS]), payloads)
        index.optimize()

        games = models.Filter(must=[models.FieldCondition(key="section", match=models.MatchValue(value="games"))])
        print("Only games:")
        for hit in Retriever(model, index).search(catalog.embeddings[0], limit=4, filter=games):
            print(f"  {hit.score:.3f} {hit.id} ({hit.payload['section']})")

        print("Only items of shop-1:")
        for hit in Retriever(model, index, tenant="shop-1").search(catalog.embeddings[0], limit=4):
            print(f"  {hit.score:.3f} {hit.id} ({hit.payload['shop']})")


if __name__ == "__main__":
    main()
