"""study.json: the union of what was requested, and the runs on disk against it."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.errors import UserError
from bench.runs import Writer, read_run, read_study, read_study_file, studies, write_study
from tests.synthetic import StubJob, make_study, study_record

JOBS = [StubJob(seed=seed) for seed in range(2)]


def test_grids_are_united_and_writing_again_changes_nothing(tmp_path: Path) -> None:
    write_study(tmp_path, study_record(JOBS))
    more = [StubJob(seed=1), StubJob(seed=2), StubJob(seed=0, algo="sac", label="sac")]
    merged = write_study(tmp_path, study_record(more))
    assert [(cell["label"], cell["seed"]) for cell in merged["grid"]] == [
        ("qsm", 0),
        ("qsm", 1),
        ("qsm", 2),
        ("sac", 0),
    ]
    assert read_study_file(tmp_path, "study") == merged
    file = tmp_path / "study" / "study.json"
    before = file.stat()
    write_study(tmp_path, study_record(JOBS))
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert file.stat().st_ino == before.st_ino
    assert studies(tmp_path) == ["study"]


def test_other_settings_are_refused_with_each_difference(tmp_path: Path) -> None:
    write_study(tmp_path, study_record(JOBS))
    before = (tmp_path / "study" / "study.json").read_bytes()
    with pytest.raises(
        UserError, match=r"eval_every is 100 there and 50 here; more is absent there and 1 here"
    ):
        write_study(tmp_path, study_record(JOBS, {"steps": 1000, "eval_every": 50, "more": 1}))
    assert (tmp_path / "study" / "study.json").read_bytes() == before


def test_a_cell_with_results_keeps_its_configuration(tmp_path: Path) -> None:
    write_study(tmp_path, study_record(JOBS))
    other = dataclasses.replace(JOBS[0], config={"M_q": 1.0})
    merged = write_study(tmp_path, study_record([other]))  # nothing was run yet
    assert merged["grid"][0]["hash"] == other.hash
    Writer.open(tmp_path, other, execution={}, provenance={}).release()
    with pytest.raises(UserError, match="seed-0 was run with another configuration of qsm"):
        write_study(tmp_path, study_record(JOBS))
    assert read_study_file(tmp_path, "study") == merged


@pytest.mark.parametrize(
    "change",
    [
        {"study": "../x"},
        {"study": ""},
        {"study": None},
        {"title": 5},
        {"settings": {"steps": None}},
        {"grid": [5]},
        {"grid": [JOBS[0].cell, JOBS[0].cell]},
        {"grid": [JOBS[0].cell | {"label": "a/b"}]},
        {"grid": [JOBS[0].cell | {"env": ".."}]},
        {"grid": [JOBS[0].cell | {"env": "a/../../b"}]},
        {"grid": [JOBS[0].cell | {"seed": -1}]},
        {"grid": [JOBS[0].cell | {"hash": ""}]},
    ],
)
def test_a_study_of_another_kind_is_neither_written_nor_read(tmp_path: Path, change: dict[str, Any]) -> None:
    bad = study_record(JOBS) | change
    with pytest.raises(UserError) as caught:
        write_study(tmp_path, bad)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.json").write_text(json.dumps(bad))
    with pytest.raises(UserError, match=r"study\.json"):
        read_study(tmp_path, "study")


def test_a_damaged_study_file_is_not_overwritten(tmp_path: Path) -> None:
    write_study(tmp_path, study_record(JOBS))
    file = tmp_path / "study" / "study.json"
    os.truncate(file, 40)
    for use in (lambda: write_study(tmp_path, study_record(JOBS)), lambda: read_study(tmp_path, "study")):
        with pytest.raises(UserError, match=r"study\.json is not JSON"):
            use()
    assert file.stat().st_size == 40


def test_an_unknown_study_names_close_ones(tmp_path: Path) -> None:
    write_study(tmp_path, study_record(JOBS))
    for name in ("studdy", "../study", "", "timing"):
        with pytest.raises(UserError, match="no study") as caught:
            read_study(tmp_path, name)
        assert "study" in str(caught.value)
    with pytest.raises(UserError, match="did you mean 'study'"):
        read_study(tmp_path, "studdy")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be read"):
        read_study(tmp_path, "file")


def test_every_cell_is_there_and_what_nobody_asked_for_is_a_problem(tmp_path: Path) -> None:
    jobs = make_study(tmp_path, "s", ["walker-run"], ["sac", "td3"], range(3), 2, np.random.default_rng(0))
    extra = StubJob(seed=9, study="s", env="my/Task-v1", algo="sac", label="sac")
    write_study(tmp_path, study_record([extra], jobs[0].settings))
    (tmp_path / jobs[0].path / "eval.csv").write_text("nonsense")
    (tmp_path / jobs[1].path).rename(tmp_path / jobs[1].path.with_name("seed-77"))
    found = read_study(tmp_path, "s")
    assert found.meta["settings"] == jobs[0].settings
    assert [(run.algo, run.seed, run.state) for run in found.runs] == [
        ("sac", 0, "damaged"),
        ("sac", 1, "missing"),
        ("sac", 2, "done"),
        ("td3", 0, "done"),
        ("td3", 1, "done"),
        ("td3", 2, "done"),
        ("sac", 9, "missing"),
    ]
    assert found.runs[-1].env == "my/Task-v1"
    assert found.problems == [
        "s/walker-run/sac/seed-0: left out: eval.csv has changed since the run finished (SHA-256)",
        "s/walker-run/sac/seed-77: left out: on disk, but not in the grid of study.json",
    ]


def test_a_run_of_another_configuration_is_a_problem(tmp_path: Path) -> None:
    jobs = make_study(tmp_path, "s", ["walker-run"], ["sac"], [0], 2, np.random.default_rng(0))
    file = tmp_path / "s" / "study.json"
    file.write_text(file.read_text().replace(jobs[0].hash, "0" * 64))
    found = read_study(tmp_path, "s")
    assert [(run.state, run.verified) for run in found.runs] == [("configuration changed", False)]
    assert "another configuration" in found.problems[0]


def test_an_environment_with_a_namespace_has_a_folder(tmp_path: Path) -> None:
    @dataclasses.dataclass(frozen=True)
    class Namespaced(StubJob):
        @property
        def path(self) -> Any:
            return dataclasses.replace(StubJob(**vars(self)), env=self.env.replace("/", "_")).path

    job = Namespaced(env="my/Task-v1")
    Writer.open(tmp_path, job, execution={}, provenance={}).finish("done", 1, policy=None)
    write_study(tmp_path, study_record([job]))
    found = read_study(tmp_path, "study")
    assert [(run.env, run.state) for run in found.runs] == [("my/Task-v1", "done")]
    assert found.problems == []
    assert read_run(tmp_path / job.path).env == "my/Task-v1"


@pytest.mark.seconds
def test_two_requests_at_once_are_both_kept(tmp_path: Path) -> None:
    children = []
    for seed in range(8):
        pid = os.fork()
        if pid == 0:
            try:
                write_study(tmp_path, study_record([StubJob(seed=seed)]))
            finally:
                os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
    assert {cell["seed"] for cell in read_study_file(tmp_path, "study")["grid"]} == set(range(8))
