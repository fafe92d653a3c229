"""Train a small model, load an embedded index and search it.

    python examples/load_and_search.py

The settings are small, so that it takes seconds. For real use leave them out: `TrainConfig()` has tuned defaults.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from compressae_qdrant import CompresSAE, EdgeIndex, Retriever, TrainConfig, load_sample, train

SMALL = TrainConfig(latents=256, k=16, steps=20, rounds=3, round_items=1024, encoder_steps=5)
ITEMS = 1000


def main() -> None:
    catalog = load_sample()
    model = train(catalog.embeddings[:ITEMS], SMALL)
    with TemporaryDirectory() as folder:
        model.save(Path(folder) / "model")
        model = CompresSAE.load(Path(folder) / "model")
        with EdgeIndex.create(Path(folder) / "index", model) as index:
            # compressae_qdrant.ingest() does the same for files of any size, and resumes after an interruption.
            index.upsert(catalog.ids[:ITEMS], model.encode(catalog.embeddings[:ITEMS]), catalog.payloads[:ITEMS])
            index.optimize()
            retriever = Retriever(model, index)
            print("Packages like 0ad:")
            for hit in retriever.similar_to("0ad", limit=5):
                print(f"  {hit.score:.3f} {hit.id}: {hit.payload['title']}")
            print("Items closest to a vector:")
            for hit in retriever.search(catalog.embeddings[7], limit=3):
                print(f"  {hit.score:.3f} {hit.id}: {hit.payload['title']}")


if __name__ == "__main__":
    main()
