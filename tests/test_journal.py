"""Journals: reading, refusing another ingestion's, and what older versions wrote."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from compressae_qdrant.errors import ConfigError
from compressae_qdrant.ingestion.confirmed import Confirmed
from compressae_qdrant.ingestion.journal import FileJournal, Journal

JOURNAL = Journal("source", "m-1", "pursuit/4", "", empty=True, next_row=70, skipped=2)


def test_a_journal_is_read_as_it_was_saved(tmp_path: Path) -> None:
    assert Journal.load(tmp_path / "journal") is None
    JOURNAL.save(tmp_path / "journal")
    assert Journal.load(tmp_path / "journal") == JOURNAL
    assert json.loads((tmp_path / "journal").read_text()) == {
        "format": 1, "source": "source", "model": "m-1", "method": "pursuit/4", "index": "", "empty": True,
        "next_row": 70, "skipped": 2, "complete": False,
        "confirmed": {"identity": "", "items": None,
                      "sample": {"values": [], "latest": [], "stride": 1, "seen": 0}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("field", "label"),
    [("source", "source"), ("model", "model"), ("method", "encoding method"), ("index", "index")],
)
def test_the_journal_of_another_ingestion_is_refused(tmp_path: Path, field: str, label: str) -> None:
    JOURNAL.check(JOURNAL, tmp_path)
    with pytest.raises(ConfigError, match=rf"another {label} \(.*, now other\); use restart=True \(--restart\)"):
        JOURNAL.check(dataclasses.replace(JOURNAL, **{field: "other"}), tmp_path)  # type: ignore[arg-type]  # a text


@pytest.mark.parametrize("kind", [Journal, FileJournal])
@pytest.mark.parametrize("text", ["[]", "{", "{}", '{"format": 1, "rows": 3}'])
def test_other_files_are_refused(tmp_path: Path, kind: type[Journal] | type[FileJournal], text: str) -> None:
    (tmp_path / "journal").write_text(text)
    with pytest.raises(ConfigError, match=r"is not (an ingestion journal|the journal of a Ray job)"):
        kind.load(tmp_path / "journal")


def test_what_is_known_of_the_index_is_kept(tmp_path: Path) -> None:
    confirmed = Confirmed("a1", 70)
    confirmed.add(["x", 3, np.int64(7)])
    for journal in (dataclasses.replace(JOURNAL, confirmed=confirmed), FileJournal("m-1", "i", {}, confirmed)):
        journal.save(tmp_path / "journal")
        assert type(journal).load(tmp_path / "journal") == journal
        written = json.loads((tmp_path / "journal").read_text())
        del written["confirmed"]  # as version 0.1 wrote it
        (tmp_path / "journal").write_text(json.dumps(written))
        read = type(journal).load(tmp_path / "journal")
        assert read is not None
        assert read.confirmed == Confirmed()


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    for journal in (JOURNAL, FileJournal("m-1", "index")):
        journal.save(tmp_path / "journal")
        newer = json.loads((tmp_path / "journal").read_text()) | {"format": 2}
        (tmp_path / "journal").write_text(json.dumps(newer))
        with pytest.raises(ConfigError, match="journal format 2, but this version reads format 1"):
            type(journal).load(tmp_path / "journal")


def test_a_file_is_loaded_until_it_changes(tmp_path: Path) -> None:
    file, journal = tmp_path / "a.parquet", FileJournal("m-1", "index")
    file.write_text("rows")
    journal.add(str(file))
    journal.save(tmp_path / "journal")
    assert (read := FileJournal.load(tmp_path / "journal")) == journal
    assert read is not None
    assert read.contains(str(file))
    file.write_text("other rows")
    assert not read.contains(str(file))
