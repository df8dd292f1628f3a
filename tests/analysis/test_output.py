"""The report folder as a whole: the same bytes twice, without torch, whatever state the study is in."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bench.analysis import SUMMARY, build
from bench.analysis.scores import runs as run_tables
from bench.analysis.scores import tables as score_tables
from bench.analysis.scores.load import load
from bench.errors import UserError
from tests.analysis import helpers
from tests.synthetic import make_study

HERE = Path(__file__).parents[2]
WITHOUT_TORCH = """
import sys
class NoTorch:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] in ("torch", "algos"):
            raise ImportError(f"{name} is not to be imported here")
sys.meta_path.insert(0, NoTorch())
from pathlib import Path
from bench import analysis
analysis.build(Path(sys.argv[1]), "made-up")
print((Path(sys.argv[1]) / "made-up/report" / analysis.SUMMARY).read_text())
"""


def full(root: Path) -> Path:
    """A study with everything that a report can show, and something wrong with it."""
    folder = helpers.study(
        root, envs=["a-run", "b-walk", "Pendulum-v1"], algos=["qsm", "dql", "sac", "random"]
    )
    helpers.with_config(folder, hidden=[256, 256], batch_size=256, T=5)
    helpers.diverge(folder / "a-run/sac/seed-0", 2000, [10])
    (folder / "b-walk/qsm/seed-1/done.json").unlink()
    helpers.timing(root)
    (root / "external").mkdir()
    (root / "external/theirs.csv").write_text("env,algo,seed,env_step,return\na-run,sac,0,1000,10.0\n")
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.slow
def test_two_builds_give_the_same_bytes_and_torch_is_never_imported(tmp_path):
    first, second = tmp_path / "first", tmp_path / "a folder of another name"
    found = []
    for root, seed, locale in ((first, "1", "C.UTF-8"), (second, "2", "tr_TR.UTF-8")):
        full(root)
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(HERE), "TZ": f"UTC{seed}"}
        environment |= {"LC_ALL": locale, "LANGUAGE": locale}
        command = [sys.executable, "-c", WITHOUT_TORCH, str(root)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
        assert done.returncode == 0, done.stderr
        assert "| a-run" in done.stdout
        found.append(digests(root / "made-up/report"))
        found[-1]["index of all studies"] = hashlib.sha256((root / "index.html").read_bytes()).hexdigest()
    assert found[0] == found[1]
    names = set(found[0])
    for stem in ("learning_curves", "aggregate_iqm", "performance_profiles", "probability_of_improvement"):
        assert {f"figures/{stem}.pdf", f"figures/{stem}.png"} <= names
    for stem in ("return_against_hours", "external", "update_time-idle-cpu-eager-1-float32"):
        assert f"figures/{stem}.pdf" in names
    for stem in (
        "final_return",
        "scores",
        "runs",
        "wall_clock-idle-cpu-eager-1-float32",
        "provenance",
    ):
        assert {f"tables/{stem}.csv", f"tables/{stem}.md", f"tables/{stem}.tex"} <= names
    text = b"".join(path.read_bytes() for path in (first / "made-up/report").rglob("*") if path.is_file())
    assert str(tmp_path).encode() not in text  # no path of this machine
    assert b"CreationDate" not in text


@pytest.mark.slow
def test_a_report_replaces_the_one_before_as_a_whole(tmp_path):
    folder = helpers.study(tmp_path, seeds=1)
    build(tmp_path, "made-up")
    (folder / "report/tables/of-yesterday.csv").write_text("x")
    paths = build(tmp_path, "made-up")
    assert not (folder / "report/tables/of-yesterday.csv").exists()
    assert folder / "report/index.html" in paths
    assert [path.name for path in folder.iterdir() if "report" in path.name] == ["report"]


@pytest.mark.seconds
def test_a_report_takes_away_what_a_killed_process_left(tmp_path):
    folder = helpers.study(tmp_path, seeds=1)
    for name in ("report.1.tmp", "report.2.old"):
        (folder / name / "figures").mkdir(parents=True)
    build(tmp_path, "made-up")
    assert sorted(path.name for path in folder.glob("report*")) == ["report"]


def test_nothing_scored_yet_is_a_report_too(tmp_path):
    folder = helpers.study(tmp_path, seeds=2)
    for done in folder.glob("*/*/*/done.json"):
        done.unlink()
    build(tmp_path, "made-up")
    assert "No run has been scored yet." in (folder / "report" / SUMMARY).read_text()
    page = (folder / "report/index.html").read_text()
    assert "4 stale" in page
    assert "No score, stale: cheetah-run/qsm/seed-0, cheetah-run/qsm/seed-1, cheetah-run/sac/seed-0" in page


def test_an_empty_grid(tmp_path):
    folder = helpers.study(tmp_path, seeds=1)
    helpers.change_study(folder, grid=[])
    build(tmp_path, "made-up")
    assert "No run has been scored yet." in (folder / "report" / SUMMARY).read_text()


@pytest.mark.seconds
def test_a_single_evaluation_of_a_single_seed(tmp_path):
    helpers.study(tmp_path, seeds=1, evaluations=1)
    build(tmp_path, "made-up")
    shown = (tmp_path / "made-up/report/tables/final_return.md").read_text()
    assert "n = 1†" in shown
    assert "\\[" not in shown  # one seed has no interval


def test_settings_that_depend_on_the_task_are_shown_so(tmp_path):
    folder = helpers.study(tmp_path, envs=["a-run", "b-walk", "c-run"], seeds=1)
    helpers.with_config(folder, M_q=50.0, hidden=[256, 256])
    helpers.change_meta(folder / "b-walk/qsm/seed-0", config={"M_q": 120.0, "hidden": [256, 256]})
    table = run_tables.configurations(load(tmp_path, "made-up"))
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["M_q"] == ["50.0; 120.0: b-walk", "50.0"]
    assert rows["hidden"] == ["256x256", "256x256"]
    assert rows["steps"] == ["10000", "10000"]


@pytest.mark.parametrize(
    ("name", "seeds", "expected"),
    [
        ("made-up", (0, 1), 'make bench STUDY=made-up ALGOS="qsm sac" ENVS="a-run" SEEDS=2'),
        (
            "quick-eval_every=5-steps=90",
            (3,),
            'STUDY=quick STEPS=90 SET="eval_every=5" ALGOS="qsm sac" ENVS="a-run" SEEDS=3,',
        ),
    ],
)
def test_the_command_that_runs_it_again(tmp_path, name, seeds, expected):
    folder = helpers.study(tmp_path, envs=["a-run"], seeds=4, name=name)
    grid = json.loads((folder / "study.json").read_text())["grid"]
    helpers.change_study(folder, grid=[cell for cell in grid if cell["seed"] in seeds])
    assert run_tables.command(load(tmp_path, name)).endswith(expected)


def _attempts(run, *attempts):
    """Give a run these attempts: each the step that it resumed at and its provenance."""
    (first, *_) = json.loads((run / "run.json").read_text())["attempts"]
    made = [
        first | {"attempt": i, "resumed_at_step": step, "provenance": helpers.ORIGIN | origin}
        for i, (step, origin) in enumerate(attempts, start=1)
    ]
    helpers.change_meta(run, attempts=made)


@pytest.mark.slow
def test_pooled_behaviour_is_said_first(tmp_path):
    folder = helpers.study(tmp_path, seeds=2)
    old = {"code_digest": "5cb79156f93f80f8643b97bb5b68c15e3b28d284462c7a5fafd55ceec598d24f"}
    _attempts(folder / "cheetah-run/qsm/seed-0", (0, old))
    _attempts(folder / "cheetah-run/qsm/seed-1", (0, {"behaviour": 1, "code_digest": "b" * 64}))
    _attempts(folder / "cheetah-run/sac/seed-0", (0, {"behaviour": 2} | old), (0, {"behaviour": 1}))
    _attempts(folder / "cheetah-run/sac/seed-1", (0, {"behaviour": 1, "git": {"dirty": True}}), (3000, old))
    build(tmp_path, "made-up")
    page = (folder / "report/index.html").read_text()
    assert "behaviour versions of the code are pooled" not in page  # other digests alone are no other numbers
    assert "1 runs were made with uncommitted changes" in page
    _attempts(folder / "cheetah-run/sac/seed-1", (0, old), (3000, {"behaviour": 2}), (5000, {"behaviour": 1}))
    _attempts(folder / "cheetah-run/sac/seed-0", (0, {}))
    build(tmp_path, "made-up")
    page = (folder / "report/index.html").read_text()
    assert (
        "Scores of different behaviour versions of the code are pooled: "
        "1 (2 runs), 1 then 2 (1 run), unknown (code aaaaaaaa) (1 run)." in page
    )


def test_pooled_code_of_an_outside_package_is_said_with_every_table(tmp_path):
    folder = helpers.study(tmp_path, seeds=3)

    def made_with(seed, *digests):
        offers = {
            "offers": "algorithm qsm",
            "title": "QSM",
            "distribution": "mine",
            "version": "1",
            "git": None,
        }
        attempts = [{"plugins": [offers | {"modules_sha256": digest * 64}]} for digest in digests]
        _attempts(folder / f"cheetah-run/qsm/seed-{seed}", *((1000 * i, a) for i, a in enumerate(attempts)))

    made_with(0, "a")
    made_with(1, "a")
    made_with(2, "a")
    assert run_tables.pooled_code(load(tmp_path, "made-up")) == []
    made_with(2, "a", "b")  # the code changed between stop and resume
    results = load(tmp_path, "made-up")
    (line,) = run_tables.pooled_code(results)
    assert line == (
        "Scores of different code of the algorithm qsm are pooled: mine 1 with digest aaaaaaaa (3 runs), "
        "mine 1 with digest bbbbbbbb (1 run)."
    )
    assert line in run_tables.warnings(results)
    assert line in score_tables.final_return(results).notes
    for odd in ("x", [1], [{}]):  # a file from elsewhere
        _attempts(folder / "cheetah-run/qsm/seed-0", (0, {"plugins": odd}))
        run_tables.pooled_code(load(tmp_path, "made-up"))


def _package(task, digest, **more):
    record = {"offers": f"task {task}", "distribution": "mine", "version": "1.0", "git": {"commit": None}}
    return record | {"modules_sha256": "c" * 64, "files_sha256": digest * 64} | more


@pytest.mark.slow
def test_pooled_code_of_a_package_is_said(tmp_path):
    folder = helpers.study(tmp_path, seeds=2)
    one, other = _package("mine:A-v0", "a"), _package("mine:A-v0", "b", version="1.1")
    algorithm = {"offers": "algorithm sac", "title": "SAC", "modules_sha256": "d" * 64}
    _attempts(folder / "cheetah-run/qsm/seed-0", (0, {"plugins": [one]}))
    _attempts(folder / "cheetah-run/qsm/seed-1", (0, {"plugins": [one, algorithm]}))
    _attempts(folder / "cheetah-run/sac/seed-0", (0, {"plugins": [one]}))
    build(tmp_path, "made-up")
    page = (folder / "report/index.html").read_text()
    assert "are pooled" not in page
    table = (folder / "report/tables/provenance.csv").read_text()
    assert f"task mine:A-v0.files_sha256,{'a' * 64},3" in table
    assert f"algorithm sac.modules_sha256,{'d' * 64},1" in table
    _attempts(folder / "cheetah-run/sac/seed-0", (0, {"plugins": [one]}), (3000, {"plugins": [other]}))
    _attempts(folder / "cheetah-run/sac/seed-1", (0, {"plugins": [3, {"offers": 4}, {"offers": "task x"}]}))
    build(tmp_path, "made-up")
    page = (folder / "report/index.html").read_text()
    assert (
        "Scores of different code of the task mine:A-v0 are pooled: mine 1.0 with digest aaaaaaaa (3 runs), "
        "mine 1.1 with digest bbbbbbbb (1 run)." in page
    )


def test_no_study_and_no_right_to_write(tmp_path):
    with pytest.raises(UserError, match="no study 'other'"):
        build(tmp_path, "other")
    folder = helpers.study(tmp_path, seeds=1)
    (folder / f"report.{os.getpid()}.tmp").write_text("in the way")
    with pytest.raises(UserError, match="cannot write"):
        build(tmp_path, "made-up")


@pytest.mark.full
def test_ten_thousand_runs_in_a_minute(tmp_path):
    """The whole report of 10,000 runs x 200 evaluations x 10 episodes, on 2 cores: under 60 s and 4 GiB."""
    envs = [f"task-{i}" for i in range(8)]
    algos = ["qsm", "dql", "sac", "td3", "random"]
    rng = np.random.default_rng(0)
    make_study(tmp_path, "made-up", envs, algos, range(250), 200, rng, origin=helpers.ORIGIN)
    script = (
        "import resource, sys; from pathlib import Path; from bench.analysis import build;"
        "build(Path(sys.argv[1]), 'made-up');"
        "print(sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))"
    )
    start = time.monotonic()
    command = ["taskset", "-c", "0,1", sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(HERE)})
    took = time.monotonic() - start
    assert done.returncode == 0, done.stderr
    print(f"{took:.0f} s, {int(done.stdout) / 2**20:.2f} GiB")
    assert took < 60
    assert int(done.stdout) < 4 * 2**20
