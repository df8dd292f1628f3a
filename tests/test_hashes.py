"""A run's hash does not change with the code: settings that were added later are left out where they are not set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.studies.job import Job, RunSettings
from bench.studies.overrides import algorithm_config, default_config, recorded

REPO = Path(__file__).parents[1]
#: One run of each algorithm and label among the committed ones.
RUNS = {(p.parts[-3], p.parts[-5]): p for p in sorted(REPO.glob("results/*/*/*/seed-*/run.json"))}


@pytest.mark.parametrize("path", RUNS.values(), ids=[f"{study}-{label}" for label, study in RUNS])
def test_a_committed_run_has_the_hash_that_its_settings_have_today(path: Path) -> None:
    record = json.loads(path.read_text())
    algo, config = record["algo"], record["config"]
    # a field that a record lacks has the value of its Config, also where a critic has other defaults
    today = recorded(algo, algorithm_config(algo, default_config(algo) | config))
    assert today == config
    settings = RunSettings(**record["settings"])
    job = Job("any", record["env"], algo, record["label"], record["seed"], today, settings)
    assert job.hash == record["hash"]


def test_a_later_field_is_recorded_where_it_is_set_and_only_there() -> None:
    assert "critic" in default_config("sac")
    assert "critic" not in recorded("sac", algorithm_config("sac", {}))
    assert "critic" not in recorded("sac", algorithm_config("sac", {"critic": "mlp"}))
    assert recorded("sac", algorithm_config("sac", {"critics": 3}))["critics"] == 3
    # a field of the first day is recorded whatever its value
    assert recorded("sac", algorithm_config("sac", {}))["tau"] == 0.005
