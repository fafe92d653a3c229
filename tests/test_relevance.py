"""nDCG for judged queries, and weights of the fusion chosen by them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressae_qdrant import CompresSAE, EdgeIndex, IndexSettings, Retriever, SparseCodes
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import InvalidInputError
from compressae_qdrant.evaluation.relevance import measure_relevance, read_judgements

from .support.shell import Shell

ITEMS = 200


@pytest.fixture
def words(tmp_path: Path, model: CompresSAE, codes: SparseCodes) -> Iterator[EdgeIndex]:
    """The directory `words`, whose items have a word of their own in `title`."""
    with EdgeIndex.create(tmp_path / "words", model, IndexSettings(text_fields=["title"])) as index:
        index.upsert(range(ITEMS), codes[:ITEMS], [{"title": f"word{n} all"} for n in range(ITEMS)])
        yield index


def _judgements(path: Path, embeddings: FloatArray, texts: bool = True) -> Path:
    """Queries with the vector of an item and the word of the next item, which is the relevant one."""
    rows = [{"embedding": embeddings[n].tolist(), "text": f"word{n + 1}", "relevant": [n + 1]} for n in range(20)]
    rows = rows if texts else [{name: row[name] for name in ("embedding", "relevant")} for row in rows]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    return path


def test_weights_are_chosen_by_judgements(
    tmp_path: Path, words: EdgeIndex, model: CompresSAE, embeddings: FloatArray
) -> None:
    judged = read_judgements(_judgements(tmp_path / "judged.jsonl", embeddings))
    assert (judged.embeddings.shape, judged.texts[0], judged.grades[0]) == ((20, 24), "word1", {1: 1.0})
    measured = measure_relevance(Retriever(model, words), judged, {})
    means = {name: each.mean for name, each in measured.rankings.items()}
    assert means["words"] == pytest.approx(1)
    assert means["codes"] < 0.5
    assert means["codes"] < means["fused"] < 1
    assert measured.choice is not None
    assert measured.choice.word_weight > 1  # here only words are relevant
    assert means["fused, chosen weights"] > means["fused"]


def test_queries_without_words_are_measured_by_codes(
    tmp_path: Path, words: EdgeIndex, model: CompresSAE, embeddings: FloatArray
) -> None:
    judged = read_judgements(_judgements(tmp_path / "judged.jsonl", embeddings, texts=False))
    measured = measure_relevance(Retriever(model, words), judged, {})
    assert (list(measured.rankings), measured.choice, measured.queries) == (["codes"], None, 20)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "line 1 of .* is no judged query"), ("[1]", "line 1 of .* is no judged query"),
        ('{"embedding": [1], "relevant": {}}', "line 1 of .* has no relevant item"),
        ('{"embedding": [1], "relevant": {"a": 0}}', "has no relevant item"),
        ('{"embedding": [1], "relevant": ["a"], "text": 3}', "a text that is no text"),
        ('{"embedding": ["x"], "relevant": ["a"]}', "is no judged query"),
        ('{"embedding": [1], "relevant": ["a"]}\n{"embedding": [1, 2], "relevant": {"b": 2}}', "different lengths"),
        ("", "has no judged queries"),
    ],
)  # fmt: skip
def test_invalid_judgements_are_refused(tmp_path: Path, line: str, complaint: str) -> None:
    (tmp_path / "judged.jsonl").write_text(line)
    with pytest.raises(InvalidInputError, match=complaint):
        read_judgements(tmp_path / "judged.jsonl")
    with pytest.raises(InvalidInputError, match="cannot read the judgements"):
        read_judgements(tmp_path / "missing.jsonl")


def test_evaluate_measures_relevance(
    shell: Shell, tmp_path: Path, words: EdgeIndex, model: CompresSAE, embeddings: FloatArray
) -> None:
    words.close()
    model.save(tmp_path / "model")
    rows: list[Any] = [{"id": n, "embedding": x.tolist()} for n, x in enumerate(embeddings[:ITEMS])]
    (tmp_path / "catalog.jsonl").write_text("\n".join(map(json.dumps, rows)))
    _judgements(tmp_path / "judged.jsonl", embeddings)
    line = "evaluate catalog.jsonl --model model --index words --queries 20 --relevance judged.jsonl"
    facts = shell.json(line)["relevance"]
    assert facts["rankings"]["words"]["mean"] == pytest.approx(1)
    assert facts["choice"]["word_weight"] > 1
    out = shell(line)[1]
    assert "ranking, 20 judged queries" in out
    assert "The best weights: fusion_k=" in out
    assert np.isfinite(facts["rankings"]["fused, chosen weights"]["low"])
