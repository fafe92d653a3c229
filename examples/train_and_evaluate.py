"""Compare trainings: recall against exact dense search for codes of several sizes.

python examples/train_and_evaluate.py
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from compressae_qdrant import CompresSAE, EdgeIndex, Retriever, TrainConfig, load_sample, train
from compressae_qdrant.evaluation import RetrievalReport, evaluate_search, exact_neighbours

ITEMS, QUERIES = 1000, 50


def main() -> None:
    catalog = load_sample()
    ids, embeddings = catalog.ids[:ITEMS], catalog.embeddings[:ITEMS]
    rows = np.random.default_rng(0).choice(ITEMS, QUERIES, replace=False)
    # The true neighbours of each query item, the item itself left out.
    truth = [[ids[row] for row in found] for found in exact_neighbours(embeddings[rows], embeddings, 10, rows).tolist()]

    def measure(model: CompresSAE) -> RetrievalReport:
        with TemporaryDirectory() as folder, EdgeIndex.create(Path(folder) / "index", model) as index:
            index.upsert(ids, model.encode(embeddings))
            index.optimize()
            retriever = Retriever(model, index)
            return evaluate_search(
                lambda vector, limit: [hit.id for hit in retriever.search(vector, limit)],
                embeddings[rows],
                truth,
                own=[ids[row] for row in rows],
                depths=(10,),
            )

    print("  k  bytes of a code  recall@10")
    for k in (4, 8, 16):
        config = TrainConfig(latents=256, k=k, steps=20, rounds=3, round_items=1024, encoder_steps=5)
        report = measure(train(embeddings, config))
        print(f"{k:3}  {8 * k:15}  {report.recall[10]:.3f}")


if __name__ == "__main__":
    main()
