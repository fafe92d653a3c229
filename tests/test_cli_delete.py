"""The commands delete and drop, and the pages, groups and words of search."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from qdrant_client import QdrantClient, models

from compressae_qdrant import CompresSAE, EdgeIndex, QdrantIndex, SparseCodes
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.index import location
from compressae_qdrant.index.text import RRF_K

from .support.shell import Shell

ONE = '{"must": [{"key": "group", "match": {"value": 1}}]}'


@pytest.fixture
def filled(tmp_path: Path, model: CompresSAE, codes: SparseCodes) -> None:
    """The directories `model`, and `index` with 60 items and the field `group`."""
    model.save(tmp_path / "model")
    with EdgeIndex.create(tmp_path / "index", model) as index:
        index.upsert([*range(30), *map(str, range(30, 60))], codes[:60], [{"group": n % 3} for n in range(60)])


def test_items_are_deleted_by_filter_or_id(shell: Shell, filled: None) -> None:
    assert shell.json(f"delete --index index --filter '{ONE}' --yes") == {"deleted": 20, "in_index": 40}
    by_id = shell.json("delete --index index --item 0 --item 0 --item 33 --item never --yes")
    assert by_id == {"deleted": 2, "in_index": 38}
    assert shell.json(f"delete --index index --filter '{ONE}'") == {"deleted": 0, "in_index": 38}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("delete --index index", "give either --filter or --item"),
        (f"delete --index index --item 1 --filter '{ONE}'", "give either --filter or --item"),
        ("delete --index index --filter '{}' --yes", "the filter has no condition, so it matches every item"),
        ("delete --index index --item 1", "Delete 1 items from index? There is no terminal to confirm this; add --yes"),
        ("drop --index index", "Delete the index index with its 60 items? There is no terminal"),
        ("search '[1]' --like --group-by group --model model --index index", "--group-by groups the hits"),
    ],
)
def test_nothing_is_deleted_by_accident(shell: Shell, filled: None, line: str, complaint: str) -> None:
    code, _, err = shell(line)
    assert code == 2
    assert complaint in err
    assert shell.json("info --index index")["index"]["items"] == 60


@pytest.mark.parametrize(("answer", "left"), [("y\n", 40), ("n\n", 60)])
def test_a_terminal_is_asked(
    shell: Shell, filled: None, monkeypatch: pytest.MonkeyPatch, answer: str, left: int
) -> None:
    monkeypatch.setattr("compressae_qdrant.cli.delete.sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("compressae_qdrant.cli.delete.typer.confirm", lambda *_, **__: answer == "y\n")
    code, _, err = shell(f"delete --index index --filter '{ONE}'")
    assert (code, "nothing was deleted" in err) == ((0, False) if left == 40 else (2, True))
    assert shell.json("info --index index")["index"]["items"] == left


def test_an_index_is_dropped(shell: Shell, filled: None, tmp_path: Path) -> None:
    assert shell.json("drop --index index --yes") == {"dropped": "index", "items": 60}
    assert not (tmp_path / "index").exists()
    assert "there is no index at" in shell("drop --index index --yes")[2]


def test_a_live_collection_is_dropped_only_with_its_aliases(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, model: CompresSAE
) -> None:
    client = QdrantClient(":memory:")
    monkeypatch.setattr(client, "close", lambda: None)
    monkeypatch.setattr(location, "connect", lambda text: (client, text.rpartition("/")[2]))
    QdrantIndex.create(client, "items", model)
    create = models.CreateAlias(collection_name="items", alias_name="live")
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=create)])
    line = "drop --index http://localhost:6333/live --yes"
    assert "is in use under alias 'live'" in shell(line)[2]
    assert client.collection_exists("items")
    assert shell.json(f"{line} --aliases")["items"] == 0
    assert not client.collection_exists("items")


def test_pages_thresholds_and_groups_of_a_search(shell: Shell, filled: None, embeddings: FloatArray) -> None:
    search = f"search '{json.dumps(embeddings[11].tolist())}' --model model --index index --prefetch 60"
    whole = shell.json(f"{search} --limit 20")
    assert shell.json(f"{search} --limit 5 --offset 4") == whole[4:9]
    assert shell.json(f"{search} --limit 20 --score-threshold {whole[2]['score']}") == whole[:3]
    grouped = shell.json(f"{search} --limit 2 --group-by group --group-size 2")
    assert [hit["group"] for hit in grouped] == [grouped[0]["group"]] * 2 + [grouped[2]["group"]] * 2
    assert all(hit["group"] == hit["payload"]["group"] for hit in grouped)
    out = shell(f"{search} --limit 2 --group-by group --explain")[1]
    assert out.splitlines()[0].split() == ["score", "id", "group", "explanation", "payload"]


def test_words_are_searched_beside_a_vector(shell: Shell, filled: None, tmp_path: Path, embeddings: FloatArray) -> None:
    rows = [{"id": n, "embedding": x.tolist(), "title": f"shoes{n % 7} red"} for n, x in enumerate(embeddings[:60])]
    (tmp_path / "catalog.jsonl").write_text("\n".join(map(json.dumps, rows)))
    loaded = shell.json("ingest catalog.jsonl --model model --index words --text-field title --text-field note=english")
    assert loaded["in_index"] == 60
    fields = shell.json("info --index words")["index"]["settings"]["text_fields"]
    assert {name: each["language"] for name, each in fields.items()} == {"title": None, "note": "english"}
    search = f"search '{json.dumps(embeddings[11].tolist())}' --model model --index words --limit 8"
    alone = shell.json(f"{search} --words shoes3 --code-weight 0 --word-field title=1")
    assert len({hit["id"] for hit in alone}) == 8
    assert {hit["id"] for hit in alone} <= set(range(3, 60, 7))
    fused = shell.json(f"{search} --words shoes3 --word-field title=2 --code-weight 0.5")
    assert len({hit["id"] for hit in fused} & set(range(3, 60, 7))) >= 6
    assert len(shell.json(f"{search} --words shoes3 --fusion dbsf")) == 8
    scores = {k: shell.json(f"{search} --words shoes3 --fusion-k {k}")[0]["score"] for k in (1, 60)}
    assert scores[1] > 10 * scores[60]
    assert str(RRF_K) == "2"  # as the help of --fusion-k says
    for options, complaint in (
        ("--fusion-k 2", "are for a search with --words; give it too"),
        ("--words x --fusion-k 0", "fusion_k is 0; it must be a whole number of at least 1"),
        ("--code-weight 2", "are for a search with --words; give it too"),
        ("--words x --word-field title", "--word-field is 'title'; write it as NAME=WEIGHT, such as title=2"),
        ("--words x --fusion sum", "--fusion is 'sum'; it must be one of rrf, dbsf"),
        ("--words x --word-field colour=1", "the index has no text field 'colour'"),
    ):
        code, _, err = shell(f"{search} {options}")
        assert (code, complaint in err) == (2, True), err
    again = shell("ingest catalog.jsonl --model model --index words --text-field title")[2]
    assert "Settings are fixed when an index is created" in again
