"""What docs/ shows as an example works as it stands."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import main
from bench.check.tasks import CHECKS
from bench.runs import read_run
from bench.studies.file import load_study
from bench.studies.job import RunSettings
from tests.launching import REPO


def block(document: str, language: str) -> str:
    match = re.search(rf"```{language}\n(.*?)```", (REPO / "docs" / document).read_text(), re.S)
    assert match, f"no {language} in {document}"
    return match[1]


def test_the_study_file(tmp_path: Path) -> None:
    (tmp_path / "knobs.toml").write_text(block("studies.md", "toml"))
    study = load_study(str(tmp_path / "knobs.toml"))
    cells = {(job.env, job.label): job.config for job in study.jobs()}
    assert len(study.jobs()) == 8 * 5
    assert cells["cheetah-run", "qsm"]["M_q"] == 50
    assert cells["quadruped-walk", "qsm"]["M_q"] == 80
    assert cells["quadruped-walk", "qsm-M_q=120-T=20"]["M_q"] == 120
    assert cells["cheetah-run", "sac"]["actor_lr"] == 1e-4
    assert {tuple(config["hidden"]) for config in cells.values()} == {(256, 256)}


def test_every_setting_of_a_run_is_explained() -> None:
    text = (REPO / "docs" / "studies.md").read_text()
    told = dict(re.findall(r"^\| `(\w+)` \| `?([\w,]+)`? \|", text, re.M))
    for name, setting in RunSettings.__dataclass_fields__.items():
        assert told[name].replace(",", "") == str(setting.default), name


def test_every_demand_on_a_task_is_explained() -> None:
    text = (REPO / "docs" / "adding-a-task.md").read_text()
    for what in CHECKS:
        assert f"\n| {what}" in text, what


def test_what_is_said_not_to_have_been_run_can_be_run_and_was_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (section,) = re.findall(
        r"## What has not been run\n(.*?)\n## ", (REPO / "docs/findings.md").read_text(), re.S
    )
    commands = re.findall(r"`make bench (.+?)` \|", section)
    assert len(commands) == section.count("| `make ") > 0
    for command in commands:
        assert main(["run", *shlex.split(command), f"RESULTS={REPO / 'results'}", "DRY=1"]) == 0
        (to_do,) = re.findall(r" (\d+) to do", capsys.readouterr().out)
        assert int(to_do) > 0, command


@pytest.mark.slow
def test_the_task_in_one_file(tmp_path: Path) -> None:
    (tmp_path / "my_tasks.py").write_text(block("adding-a-task.md", "python"))
    assert "all rules hold" in python(tmp_path, "bench", "check", "my_tasks:Push-v0", path=REPO)
    out = python(
        tmp_path, "bench", "run", "--algos", "sac:hidden=16x16,critic_hidden=16x16", "--envs", "my_tasks:Push-v0",
        "--seeds", "1", "--steps", "400", "--set", "random_steps=200 eval_episodes=1 final_episodes=1 eval_every=200",
        path=REPO,
    )  # fmt: skip
    assert "1 of 1 runs done" in out
    (folder,) = tmp_path.glob("results/*/my_tasks+Push-v0/*/seed-0")
    run = read_run(folder)
    assert (run.state, run.env) == ("done", "my_tasks:Push-v0")
    (package,) = run.meta["attempts"][0]["provenance"]["plugins"]
    assert (package["offers"], package["distribution"]) == ("task my_tasks:Push-v0", None)


def test_the_data_of_studies_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    text = block("analysis.md", "python")
    assert len([line for line in text.splitlines() if line]) <= 12
    monkeypatch.chdir(REPO)
    found: dict[str, Any] = {}
    exec(text, found)
    assert len(found["final"]) == 3 * 3
    assert found["final"]["count"].min() >= 3
    assert len(found["curves"]) == 10 * len(found["data"].runs)
    assert set(found["losses"]["label"]) >= {"qsm", "sac"}
    assert (found["hours"] > 0).all()
    assert set(found["variant"]["study"]) == {"sac-choices"}
    assert {matrix.shape[1] for matrix in found["matrices"].values()} == {3}  # tasks
    assert min(len(matrix) for matrix in found["matrices"].values()) >= 3  # seeds that all tasks have
    assert found["action"].shape == (1,)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The suite with the example's file added."""
    for folder in ("algos", "bench", "tests"):
        shutil.copytree(REPO / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPO / "pyproject.toml", tmp_path)
    (tmp_path / "algos" / "awac.py").write_text(block("adding-an-algorithm.md", "python"))
    return tmp_path


def python(checkout: Path, *arguments: str, path: Path | None = None) -> str:
    environment = {**os.environ, "PYTHONPATH": str(path or checkout)}
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=checkout, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_algorithm_in_one_file(checkout: Path) -> None:
    text = (checkout / "algos" / "awac.py").read_text()
    assert len(text.splitlines()) < 70
    assert max(map(len, text.splitlines())) <= 120
    assert "all rules hold" in python(checkout, "bench", "check", "awac")

    grid = (
        "run", "--algos", "awac awac:temperature=0.1 random", "--envs", "Pendulum-v1", "--seeds", "1",
        "--jobs", "1", "--set", "steps=300 random_steps=100 eval_episodes=1 final_episodes=1 eval_every=150",
    )  # fmt: skip
    out = python(checkout, "bench", *grid)
    assert "3 of 3 runs done" in out
    assert "AWAC" in out.partition("Algorithm")[2]  # in the same table
    runs = sorted((checkout / "results").glob("*/Pendulum-v1/*/seed-0"))
    assert [path.parent.name for path in runs] == ["awac", "awac-temperature=0.1", "random"]
    losses = read_run(runs[0]).table("train.csv").query("kind == 'loss'")
    assert {"actor_loss", "largest_weight"} <= set(losses["name"])

    # A file that does not load concerns nobody else.
    (checkout / "algos" / "broken.py").write_text("import flux_capacitor\n")
    assert "3 runs, 3 done" in python(checkout, "bench", *grid, "--dry", "1")


RUN, METRIC = "Pendulum-v1__td3__", "charts/episodic_return"
CHART = f"""global_step,{RUN}1__1700000000 - {METRIC},{RUN}2__1700000001 - {METRIC}
500,-1400.5,
510,,-1300.25
1500,-900,-800
"""


@pytest.mark.slow
def test_a_comparison_from_beginning_to_end(checkout: Path) -> None:
    """The worked example of docs/analysis.md, with fewer and shorter runs."""
    page = (REPO / "docs" / "analysis.md").read_text()
    part = page[page.index("## A comparison from beginning to end") :]
    study = re.search(r"^   ```toml\n(.*?)^   ```", part, re.M | re.S)
    command = re.search(r"make (import .*)", part)
    assert study
    assert command
    (checkout / "mine.toml").write_text(textwrap.dedent(study[1]))
    assert "18 runs" in python(checkout, "bench", "run", "STUDY=mine.toml", "DRY=1")
    shorter = [
        "ENVS=Pendulum-v1",
        "SEEDS=2",
        "STEPS=1500",
        "SET=eval_every=750 eval_episodes=1 final_episodes=1",
    ]
    python(checkout, "bench", "run", "STUDY=mine.toml", *shorter)
    name = next((checkout / "results").glob("mine*")).name

    (checkout / "wandb_export.csv").write_text(CHART)
    said = python(checkout, "bench", *command[1].split())
    assert "algorithms: td3\nseeds of each: 2; 4 evaluations, steps 500 to 1,500" in said
    python(checkout, "bench", "figures", f"STUDY={name}")
    code = f"import bench; print(*sorted(set(bench.load('results/{name}').scores.query('scored').label)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=True
    )
    assert done.stdout == "awac random sac\n"
    code = (
        "from pathlib import Path; from bench.analysis.external.curves import curves, load_curves; "
        "print([(c.source, c.algo, c.n, c.env_steps.tolist()) for c in curves(load_curves(Path('results'))[0])])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[('lab', 'td3', 2, [510.0, 1500.0])]\n"
