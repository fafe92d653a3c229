"""Explain why an item was found, then steer the search away from that concept.

    python examples/steer_and_explain.py

Latents are named by their number and sign here, as "+17". After `compressae concepts` they have names (extra
`concepts`), which `concepts=` and `within=` take too.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from compressae_qdrant import EdgeIndex, Retriever, TrainConfig, load_sample, train

SMALL = TrainConfig(latents=256, k=16, steps=20, rounds=3, round_items=1024, encoder_steps=5)
ITEMS = 1000


def main() -> None:
    catalog = load_sample()
    model = train(catalog.embeddings[:ITEMS], SMALL)
    with TemporaryDirectory() as folder, EdgeIndex.create(Path(folder) / "index", model) as index:
        index.upsert(catalog.ids[:ITEMS], model.encode(catalog.embeddings[:ITEMS]), catalog.payloads[:ITEMS])
        index.optimize()
        retriever = Retriever(model, index)
        query = catalog.embeddings[catalog.ids.index("0ad")]

        best = retriever.search(query, limit=5)
        explanation = best[1].explain()
        print(f"{best[1].id} has score {explanation.score:.3f}. The largest shares:")
        for share in explanation.shares[:3]:
            print(f"  {share.share:+.3f} latent {share.latent}")

        top = explanation.shares[0]
        concept = f"{'+' if top.item_value > 0 else '-'}{top.latent}"
        print("Before:", ", ".join(str(hit.id) for hit in best))
        steered = retriever.search(query, limit=5, concepts={concept: -0.5})
        print(f"Away from {concept}:", ", ".join(str(hit.id) for hit in steered))


if __name__ == "__main__":
    main()
