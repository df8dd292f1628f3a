"""Results written by every version of the format, from the first on, are still read to the same numbers.

tests/runs/formats/<version>/ was written by the code of that time and is never written again. A new version adds a
folder of its own and its expectations here.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.runs import FORMAT, read_study

FORMATS = Path(__file__).parent / "formats"


def test_every_version_has_its_sample() -> None:
    assert sorted(int(path.name) for path in FORMATS.iterdir()) == list(range(1, FORMAT + 1))


@pytest.mark.parametrize("version", range(1, FORMAT + 1))
def test_results_of_this_version_are_read(version: int) -> None:
    found = read_study(FORMATS / str(version), "study")
    assert found.problems == []
    assert [run.state for run in found.runs] == ["done", "diverged", "failed", "missing"]
    assert [run.verified for run in found.runs] == [True, True, False, False]
    assert [run.env_step for run in found.runs] == [1000, 150, None, None]
    assert [run.reason for run in found.runs[1:3]] == ["critic_loss is inf", "ValueError: a stub that fails"]
    done, diverged, failed, missing = found.runs
    assert done.columns("eval.csv")["return"].tolist() == [0.0, 1 / 3, 2 / 3, 1.0]
    assert done.columns("eval.csv")["env_step"].tolist() == [100, 100, 200, 200]
    assert done.columns("final.csv")["return"].tolist() == [2 / 3]
    assert done.columns("time.csv")["update_s"].tolist() == [2.0]
    assert diverged.columns("train.csv")["value"].tolist() == [float("inf")]
    assert failed.columns("eval.csv")["return"].tolist() == [0.0, 1 / 3, 2 / 3, 1.0]
    assert missing.columns("eval.csv")["return"].tolist() == []
    assert done.meta["config"]["M_q"] == 50.0
    assert done.meta["attempts"][0]["execution"]["mode"] == "eager"
