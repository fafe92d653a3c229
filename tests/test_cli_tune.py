"""The command tune, and the commands that read its settings file."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressae_qdrant.tuning.settings_file import Settings

from .support.shell import Shell

SMALL = "--depth 10 --queries 50 --latents 64 --k 4 --datatype float16 --steps 4 --rounds 2"


@pytest.fixture(autouse=True)
def _catalog(catalog: Path) -> None:
    """catalog.npy, in the working directory."""


@pytest.mark.slow
def test_the_settings_of_tune_are_used_by_train_ingest_and_search(shell: Shell, tmp_path: Path) -> None:
    code, out, err = shell(f"tune catalog.npy --budget 500 --out tuned.toml {SMALL}")
    assert code == 0, err
    assert "chosen" in out
    assert "1 trainings, 18 settings measured, 0 trainings stopped early" in out
    assert (tmp_path / "tune" / "front.png").read_bytes().startswith(b"\x89PNG")
    settings = Settings.read(tmp_path / "tuned.toml")
    trained = shell.json("train catalog.npy --out model --config tuned.toml --steps 4 --rounds 1")
    assert (trained["latents"], trained["k"]) == (64, settings.train["k"])
    shell.json("ingest catalog.npy --model model --index index --config tuned.toml")
    assert shell.json("info --index index")["index"]["settings"]["datatype"] == "float16"
    code, _, err = shell("search 3 --like --model model --index index --config tuned.toml")
    assert code == 0, err
    code, _, err = shell("search 3 --like --model model --index index --config tuned.toml --prefetch 2")
    assert (code, "prefetch is 2" in err) == (2, True)
    trained = shell.json("train catalog.npy --out other --config tuned.toml --steps 1 --rounds 0 --k 5")
    assert trained["k"] == 5


def test_json_and_goals(shell: Shell, tmp_path: Path) -> None:
    facts = shell.json(f"tune catalog.npy --recall 0.01 --out tuned.toml {SMALL}")
    assert facts["chosen"]["recall"] >= 0.01
    assert facts["chosen"] in facts["front"] or facts["front"]
    assert (facts["trainings"], facts["left"]) == (1, 0)
    code, _, err = shell(f"tune catalog.npy --recall 1.0 --out none.toml {SMALL} --work other")
    assert code == 2
    assert "no setting reaches recall@10 1" in err
    assert not (tmp_path / "none.toml").exists()
    code, _, err = shell(f"tune catalog.npy --out none.toml {SMALL}")
    assert (code, "give one of the two" in err) == (2, True)
