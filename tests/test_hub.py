"""Models in the layout of the Hub: a directory, the Hub's cache, and an upload to a stand-in."""

from __future__ import annotations

import fnmatch
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest

from compressae_qdrant import CompresSAE, MissingExtraError, ModelFileError
from compressae_qdrant.model.calibration import CalibratedPlan, Calibration, PlanRecall
from compressae_qdrant.model.config import ModelConfig

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that uploads go to, in place of the Hub: a commit in the layout of the Hub's cache."""
    root = tmp_path / "cache" / "models--owner--name"
    snapshot = root / "snapshots" / COMMIT

    class Api:
        def __init__(self, token: Any = None) -> None:
            self.token = token

        def create_repo(self, repo_id: str, *, private: bool | None, exist_ok: bool) -> None:
            assert (repo_id, exist_ok) == ("owner/name", True)
            (root / "refs").mkdir(parents=True, exist_ok=True)
            (root / "refs" / "main").write_text(COMMIT)

        def upload_folder(self, *, folder_path: str, delete_patterns: list[str], **_: Any) -> Any:
            for path in snapshot.glob("*"):
                if any(fnmatch.fnmatch(path.name, pattern) for pattern in delete_patterns):
                    path.unlink()
            shutil.copytree(folder_path, snapshot, dirs_exist_ok=True)
            return SimpleNamespace(commit_url=f"https://huggingface.co/owner/name/commit/{COMMIT}")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    return snapshot


def test_a_model_is_pushed_and_loaded_again(repository: Path, model: CompresSAE, tmp_path: Path) -> None:
    CompresSAE(ModelConfig(24, 96, 6), seed=9).push_to_hub("owner/name")
    url = model.push_to_hub("owner/name", backbone="sentence-transformers/all-MiniLM-L6-v2", license="apache-2.0")
    assert url.endswith(COMMIT)
    assert len(list(repository.glob("weights-*.safetensors"))) == 1
    loaded = CompresSAE.from_pretrained("owner/name", cache_dir=tmp_path / "cache", local_files_only=True)
    assert loaded.fingerprint == model.fingerprint
    assert loaded.projection.fingerprint == model.projection.fingerprint
    assert CompresSAE.from_pretrained(repository).fingerprint == model.fingerprint
    card = (repository / "README.md").read_text()
    assert "base_model: sentence-transformers/all-MiniLM-L6-v2\nlicense: apache-2.0\n---\n" in card
    assert "| dimensions of an embedding | 24 (96 bytes as float32) |" in card
    assert "| non-zeros of a code | 6 of 96 (48 bytes as index and value) |" in card
    assert f"`{model.fingerprint}`" in card
    assert 'CompresSAE.from_pretrained("owner/name")' in card


def test_the_card_has_the_recall_of_the_model(model: CompresSAE, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "trained")
    assert model.baseline is not None
    recall = np.nanmean(model.baseline.recalls[-1])
    expected = f"| recall@10 among {model.baseline.pools[-1]:,} held-out items | {recall:.3f} |"
    assert expected in (tmp_path / "trained" / "README.md").read_text()

    calibrated = CompresSAE.load(tmp_path / "trained")
    plans = tuple(CalibratedPlan(64, 100, 1.0, 2.0, {10: PlanRecall(mean, 0.8)}) for mean in (0.85, 0.91234))
    calibrated.calibration = Calibration(model.fingerprint, 600, 50, False, "here", plans)
    calibrated.save_pretrained(tmp_path / "calibrated")
    card = (tmp_path / "calibrated" / "README.md").read_text()
    assert "| recall@10 on 600 items (costliest calibrated plan) | 0.912 |" in card
    assert "held-out" not in card

    calibrated.save_pretrained(tmp_path / "own", recall={"recall@5 of mine": 0.5})
    assert "| recall@5 of mine | 0.500 |" in (tmp_path / "own" / "README.md").read_text()
    CompresSAE(ModelConfig(4, 8, 2)).save_pretrained(tmp_path / "untrained")
    assert "recall@" not in (tmp_path / "untrained" / "README.md").read_text()


def test_a_model_in_a_subfolder(model: CompresSAE, tmp_path: Path) -> None:
    model.save(tmp_path / "encoder" / "2_CompresSAEModule")
    loaded = CompresSAE.from_pretrained(tmp_path / "encoder", subfolder="2_CompresSAEModule")
    assert loaded.fingerprint == model.fingerprint


def test_what_cannot_be_loaded_or_pushed(model: CompresSAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("owner/missing", "not a name/of a model/"):
        with pytest.raises(ModelFileError, match="is no directory, and cannot be loaded from the Hub"):
            CompresSAE.from_pretrained(name, cache_dir=tmp_path, local_files_only=True)
    with pytest.raises(ModelFileError, match="there is no model"):
        CompresSAE.from_pretrained(tmp_path)
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", lambda *args, **kwargs: _refuse())
    with pytest.raises(ModelFileError, match="cannot upload the model to 'owner/name' \\(no token\\)"):
        model.push_to_hub("owner/name")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"compressae-qdrant\[hub\]"):
        CompresSAE.from_pretrained("owner/name")


def _refuse() -> None:
    raise PermissionError("no token")
