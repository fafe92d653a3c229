"""Compress embeddings in a scikit-learn pipeline, and find neighbours by the codes.

    python examples/sklearn_pipeline.py

Needs the extra `sklearn`. The settings are small, so that it takes seconds; the defaults are tuned.
"""

from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

from compressae_qdrant import load_sample
from compressae_qdrant.integrations.sklearn import CompresSAETransformer

ITEMS = 2000


def main() -> None:
    sample = load_sample()
    embeddings = sample.embeddings[:ITEMS]
    compress = CompresSAETransformer(latents=512, k=16, steps=20, rounds=3, encoder_steps=5, random_state=0)
    codes = make_pipeline(Normalizer(), compress).fit_transform(embeddings)
    print(f"{codes.shape[0]} codes over {codes.shape[1]} latents, {codes.nnz / codes.shape[0]:.1f} non-zeros each")
    scores = (codes @ compress.query_vectors(embeddings[:1]).T)[:, 0]
    for row in scores.argsort()[::-1][:3]:
        print(f"{scores[row]:.3f} {sample.payloads[row]['title']}")


if __name__ == "__main__":
    main()
