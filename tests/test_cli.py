"""The command line: bad input in one line and nothing written; grids that end, fail, are stopped and resumed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import main
from bench.commands import grid
from bench.envs import tasks as envs
from bench.launch import estimate, pack
from bench.launch.local import pool as local
from bench.launch.plan import Plan
from bench.runs import read_run
from bench.studies.file import load_study
from bench.studies.request import override
from tests.launching import bench, command, environment, spec, substance, wait_for

pytestmark = pytest.mark.usefixtures("stubs")

SMALL = 'algos = ["stub"]\nenvs = ["stubs/Toy-v0"]\nseeds = 2\n[run]\n' + "".join(
    f"{key} = {value}\n"
    for key, value in {
        "steps": 120, "random_steps": 20, "eval_every": 40, "eval_episodes": 2, "replay_size": 1000,
        "final_episodes": 1,
    }.items()
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a study `s.toml` of stubs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.toml").write_text(SMALL)
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """The command line in this process: exit code, standard output and error."""
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


# -- bad input ---------------------------------------------------------------------------------------

RUN = ("run", "--study", "s.toml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--study", "quik"), "no study 'quik'; did you mean 'quick'?"),
        (("run", "--study", "none.toml"), "no study file none.toml"),
        (("run", "--study", "other"), "no study 'other'; there are early-100k, "),
        ((*RUN, "--algos", "qsn"), "no algorithm 'qsn'; did you mean 'qsm'"),
        ((*RUN, "--algos", "other"), "no algorithm 'other'; there are "),
        ((*RUN, "--algos", "qsm,sac:T=5"), "no algorithm 'qsm,sac'; names have blanks between them: 'qsm sac'"),
        ((*RUN, "--algos", "qsm:nothing=1"), "qsm has no setting 'nothing'; there are M_q, T, "),
        ((*RUN, "--algos", "stub broken"), "algorithm 'broken' cannot be loaded: ModuleNotFoundError: No module named"),
        ((*RUN, "--algos", "qsm:Mq=3"), "qsm has no setting 'Mq'; did you mean 'M_q'?"),
        ((*RUN, "--algos", "qsm:T=two"), "qsm: T = 'two': expected a whole number"),
        ((*RUN, "--algos", "qsm:T=0"), "qsm: T = 0: expected at least 1 denoising step"),
        ((*RUN, "--algos", "qsm:M_q"), "'qsm:M_q': expected qsm:name=value,name=value"),
        ((*RUN, "--envs", "cheeta-run"), "unknown task 'cheeta-run'; did you mean 'cheetah-run'"),
        ((*RUN, "--envs", "CartPole-v1"), "CartPole-v1 has actions in a Discrete space; it cannot be trained"),
        ((*RUN, "--seeds", "0"), "seeds = 0: expected a number from 1"),
        ((*RUN, "--seeds", "-1"), "seeds = -1: expected a number from 1"),
        ((*RUN, "--seeds", "x"), "SEEDS=x: expected how many (SEEDS=5) or which (SEEDS=0,3,7)"),
        ((*RUN, "--steps", "0"), "steps = 0: expected a whole number from 1 on"),
        ((*RUN, "--steps", "-100"), "steps = -100: expected a whole number from 1 on"),
        ((*RUN, "--steps", "lots"), "STEPS=lots: expected a whole number"),
        ((*RUN, "--set", "eval_evry=3"), "no setting 'eval_evry' of a run; did you mean 'eval_every'"),
        ((*RUN, "--jobs", "0"), "JOBS=0: expected a whole number from 1 on"),
        ((*RUN, "--jobs", "two"), "JOBS=two: expected a whole number from 1 on"),
        ((*RUN, "--pack", "0"), "PACK=0: expected a whole number from 1 on"),
        ((*RUN, "--jobs-per-gpu", "0"), "JOBS_PER_GPU=0: expected a whole number from 1 on"),
        ((*RUN, "--hang-minutes", "0"), "HANG_MINUTES=0: expected a whole number from 1 on"),
        ((*RUN, "--job-memory-mb", "-1"), "JOB_MEMORY_MB=-1: expected a whole number from 0 on"),
        ((*RUN, "--job-memory-mb", "9000", "--device", "cuda"), "JOB_MEMORY_MB bounds address space"),
        ((*RUN, "--device", "gpu"), "DEVICE=gpu: expected cpu, cuda"),
        ((*RUN, "--execution", "fast"), "EXECUTION=fast: expected auto, eager, compile, graph"),
        ((*RUN, "--execution", "graph"), "EXECUTION=graph needs DEVICE=cuda"),
        ((*RUN, "--retry", "yes"), "RETRY=yes: expected 1, or nothing"),
        ((*RUN, "--results", ""), "RESULTS is empty: expected a path"),
        ((*RUN, "--results", "s.toml"), "s.toml is not a folder; name a folder of yours"),
        ((*RUN, "--results", "s.toml/sub"), "s.toml is not a folder; name a folder of yours"),
        ((*RUN, "--results", "x" * 300), "File name too long"),
        ((*RUN, "--checkpoints", "s.toml"), "CHECKPOINTS=s.toml: "),
        (("slurm", "--study", "s.toml", "--dry", "yes"), "DRY=yes: expected 1, or nothing"),
        ((*RUN, "DRY=yes"), "DRY=yes: expected 1, or nothing"),
        (("status",), "no results in results/ yet; `make bench` makes some"),
        (("status", "--study", "s"), "no study 's' in results"),
        (("figures", "--study", "../s"), "no study '../s' in results"),
        (("figures", "--study", "s"), "no study 's' in results"),
        (("cancel",), "cancel needs STUDY="),
        (("rnu",), "expected a command, not 'rnu'; did you mean 'run'?"),
        (("STUDY=quick", "run"), "expected a command, not 'STUDY=quick'; there are cancel, check, "),
        ((), "expected a command; there are cancel, check, "),
        (("run", "--algo", "x", "--sede", "3"), "run does not take --algo; did you mean '--algos'?"),
        (("status", "STEPS=3"), "status does not take --steps"),
        (("video",), "video needs RUN=results/<study>/<env>/<label>/seed-<k>"),
        (("video", "RUN=nowhere"), "nowhere is not a run directory: expected results/<study>"),
        (("video", "RUN=s.toml/a/b/c"), "s.toml/a/b/c is not a run directory"),
    ],
)  # fmt: skip
def test_bad_input_is_told_in_one_line_and_writes_nothing(
    arguments: tuple[str, ...], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = told(capsys, *arguments)
    assert code == 2
    assert message in err
    assert err.startswith("bench: ")
    assert err.count("\n") == 1
    assert out == ""
    assert [path.name for path in folder.iterdir()] == ["s.toml"]


@pytest.mark.seconds
def test_the_same_in_a_process_of_its_own(folder: Path) -> None:
    done = bench("run", "--study", "s.toml", "--algos", "stup")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"bench: no algorithm 'stup'; did you mean 'stub'.*\n", done.stderr)
    assert not (folder / "results").exists()


def test_numpy_takes_one_thread_unless_the_shell_says_otherwise():
    """Its products in a report are small: with a thread for each of two busy cores it took 42 s instead of 18."""
    code = """import os, sys, bench.__main__
print("numpy" in sys.modules, os.environ["OPENBLAS_NUM_THREADS"])"""
    shell = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_NUM_THREADS", "PYTHONPATH")}
    for given, expected in (({}, "1"), ({"OPENBLAS_NUM_THREADS": "4"}, "4")):
        done = subprocess.run([sys.executable, "-c", code], env=shell | given, capture_output=True, text=True)
        assert done.stdout.split() == ["False", expected], done.stderr


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "disk"
    mount.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", mount], capture_output=True
    ).returncode:
        pytest.skip("only root can mount a read-only disk")
    yield mount
    subprocess.run(["umount", mount], check=True)


def test_a_read_only_disk(folder: Path, read_only: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = told(capsys, *RUN, "--results", str(read_only / "results"))
    assert (code, err.count("\n")) == (2, 1)
    assert f"{read_only} cannot be written; name a folder of yours" in err


# -- grids -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("studies",), ("status", "--results", "r")])
def test_output_that_cannot_be_written(folder: Path, arguments: tuple[str, ...]) -> None:
    """As into a file on a full disk."""
    study = load_study("s.toml")
    grid._register(folder / "r", study, study.jobs())
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command(*arguments),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            timeout=300,
        )
    complaint = "bench: the output cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, complaint)


def tree(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()
    }


@pytest.mark.slow
def test_a_grid_from_its_start_to_its_figures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = told(capsys, *RUN, "--algos", "stub stub:fault=raise,fault_seed=1", "--jobs", "2")
    assert code == 1
    path = "s/stubs_Toy-v0/stub-fault=raise-fault_seed=1/seed-1"
    assert err == f"failed: {path}: ArithmeticError: the stub was told to fail (stub_agents.py:77, _fail)\n"
    assert "s: 4 runs, 0 done, 4 to do, 2 at once, results in results/s" in out
    assert "3 of 4 runs done, 1 failed after" in out
    assert "report: results/s/report/index.html" in out
    assert (folder / "results" / "s" / "report" / "index.html").exists()
    before = tree(folder / "results")

    # Again: what is done is not done again, and what has failed waits to be asked for.
    code, out, err = told(capsys, *RUN, "--algos", "stub stub:fault=raise,fault_seed=1", "--jobs", "2")
    assert code == 1
    assert "4 runs, 3 done, 0 to do" in out
    assert err.splitlines() == [
        f"failed: {path}: ArithmeticError: the stub was told to fail (stub_agents.py:77, _fail)",
        "runs that failed earlier are tried again with RETRY=1",
    ]
    after = tree(folder / "results")
    assert {name for name in before if before[name] != after.get(name)} <= {"s/.lock"}

    code, out, err = told(capsys, "status", "--study", "s.toml")
    assert (code, err) == (0, "")
    assert "s: 4 runs: 3 done, 1 failed" in out
    assert "stub-fault=raise-fault_seed=1/seed-1: failed: ArithmeticError: the stub was told to fail" in out

    # Another configuration in the same folder is refused, with what differs and how to proceed.
    (folder / "s.toml").write_text(SMALL + "[config]\ntau = 0.5\n")
    code, out, err = told(capsys, *RUN)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "config.tau is 0.005 there and 0.5 here" in err
    assert "Choose another STUDY name, or delete that folder" in err
    (folder / "s.toml").write_text(SMALL.replace("eval_every = 40", "eval_every = 20"))
    code, _, err = told(capsys, *RUN, "--seeds", "0,7")
    assert code == 2
    assert "settings.eval_every is 40 there and 20 here" in err
    assert tree(folder / "results") == after
    (folder / "s.toml").write_text(SMALL)

    # A damaged run is named by every command; nothing is lost, and figures leave it out.
    evaluations = folder / "results/s/stubs_Toy-v0/stub/seed-1/eval.csv"
    evaluations.write_text(evaluations.read_text().replace("40,0,", "40,0,9"))
    before = tree(folder / "results")
    code, _, err = told(capsys, *RUN)
    assert (code, err.count("\n")) == (2, 1)
    assert (
        "stub/seed-1: eval.csv has changed since the run finished (SHA-256); restore that folder, or delete it"
        in err
    )
    assert tree(folder / "results") == before
    code, out, err = told(capsys, "figures", "--study", "s")
    assert (code, err.count("\n")) == (2, 1)
    assert "stub/seed-1: eval.csv has changed since the run finished (SHA-256)" in err
    assert "report: results/s/report/index.html" in out
    (evaluations.parent / "done.json").write_text("{")
    code, out, err = told(capsys, "status")
    assert (code, err.count("\n")) == (2, 1)
    assert "stub/seed-1: done.json is not JSON" in err
    assert "Traceback" not in out + err

    (folder / "results" / "s" / "study.json").write_text("<<<<<<< HEAD\n")
    for arguments in (RUN, ("status",), ("status", "--study", "s"), ("figures",)):
        code, _, err = told(capsys, *arguments)
        assert (code, err.count("\n")) == (2, 1)
        assert "study.json" in err or "done.json" in err


def test_a_plan_says_runs_rates_hours_and_disk_and_writes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = told(capsys, *RUN, "STEPS=200", "SEEDS=3", "JOBS=2", "DRY=1")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "s-steps=200: 3 runs, 0 done, 3 to do, 2 at once"
    assert lines[1] == "stubs/Toy-v0 stub: 3 runs of 200 steps: no rate measured yet"
    assert lines[2] == "time: unknown, for no run of these algorithms has finished yet"
    # rows of 2 x 3 observations, 2 actions, reward and mask, 4 bytes each; two runs at once
    assert lines[3].startswith(f"disk: at most {replay(200, 2)} for replay buffers while runs go on; ")
    assert (
        lines[4] == f"DRY=1: nothing was run or written; results would go to {folder / 'results/s-steps=200'}"
    )
    assert [path.name for path in folder.iterdir()] == ["s.toml"]


def replay(steps: int, runs: int) -> str:
    spec = envs.spec("stubs/Toy-v0")
    return f"{runs * steps * (2 * spec.obs_dim + spec.act_dim + 2) * 4 / 1000:.0f} kB"


def test_a_plan_knows_the_rates_of_finished_runs(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four runs of 100 s: two processes need 200 s."""
    plan = Plan([[job] for job in override(load_study("s.toml"), seeds="4").jobs()])
    rates = [(folder / "none", lambda job, device: None), (folder / "known", lambda job, device: 100.0)]
    found = list(estimate.lines(plan, 2, rates, folder, folder))
    assert found[0] == "stubs/Toy-v0 stub: 4 runs of 120 steps: 1 steps/s, 2 minutes each"
    assert found[1].startswith(
        "time: about 3 minutes with 2 at once, 0.1 process hours (as fast as the finished runs in "
    )
    assert str(folder / "known") in found[1]
    assert str(folder / "none") not in found[1]
    monkeypatch.setattr(estimate.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    assert list(estimate.lines(plan, 2, rates, folder, folder))[-1].endswith("; that is too little")


def test_two_configurations_of_one_folder_are_refused_before_anything_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")  # nothing trains here
    told(capsys, *RUN, "--seeds", "1")
    study = json.loads((folder / "results/s/study.json").read_text())
    assert [cell["seed"] for cell in study["grid"]] == [0]
    told(capsys, *RUN, "--seeds", "0,1,2")
    study = json.loads((folder / "results/s/study.json").read_text())
    assert [cell["seed"] for cell in study["grid"]] == [0, 1, 2]  # the union, so that "missing" has a meaning
    code, out, _ = told(capsys, "status")
    assert (code, "s: 3 runs: 3 missing" in out) == (0, True)


# -- stopped and killed ------------------------------------------------------------------------------


def start(*arguments: str, **how: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments),
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        **how,
    )


def ends(process: subprocess.Popen[str], seconds: float = 120) -> tuple[int, str]:
    out, _ = process.communicate(timeout=seconds)
    return process.returncode, out


def group_is_empty(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
        return False
    except ProcessLookupError:
        return True


@pytest.mark.slow
def test_a_stopped_grid_goes_on_where_it_was(folder: Path) -> None:
    """Stopped by `kill`, by ^C and by a second ^C at once, one after the other."""
    arguments = (*RUN, "--seeds", "1", "--set", "steps=1500,eval_every=500", "--algos", "stub:delay=0.01")
    run = folder / "results/s-eval_every=500-steps=1500/stubs_Toy-v0/stub-delay=0.01/seed-0"
    begun = [0]
    for signals in ((signal.SIGTERM,), (signal.SIGINT,), (signal.SIGINT, signal.SIGINT)):
        process = start(*arguments)
        wait_for(partial(is_training, run, len(begun)), what="training")
        time.sleep(1)
        for number in signals:
            # ^C reaches the whole group, as from a terminal.
            os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
            time.sleep(0.3)
        code, out = ends(process)
        assert code == 130, out
        assert "Traceback" not in out
        wait_for(partial(group_is_empty, process.pid), what="the workers' end")
        assert read_run(run).state == "stale"
        begun.append(checkpoint_step(run))
        if len(signals) == 1:
            assert "left; the same command goes on where they are" in out
            assert begun[-1] > begun[-2]
    done = bench(*arguments)
    assert done.returncode == 0, done.stderr
    assert [attempt["resumed_at_step"] for attempt in read_run(run).meta["attempts"]] == begun


def is_training(path: Path, attempt: int) -> bool:
    run = read_run(path)
    return run.state == "running" and len(run.meta["attempts"]) == attempt


def checkpoint_step(path: Path) -> int:
    manifest = path / "checkpoint" / "checkpoint.json"
    return int(json.loads(manifest.read_text())["env_step"]) if manifest.exists() else 0


@pytest.mark.slow
def test_a_grid_that_was_killed_goes_on_to_the_same_curves(folder: Path) -> None:
    settings = "steps=700,eval_every=350,eval_episodes=1"
    algos = "td3:batch_size=8,hidden=8x8 stub"
    arguments = ("run", "--study", "s.toml", "--envs", "Pendulum-v1", "--jobs", "2", "--set", settings)
    arguments = (*arguments, "--algos", algos, "--results", "r")
    grid = override(load_study("s.toml"), envs="Pendulum-v1", algos=algos, settings=settings).jobs()
    for job in grid:
        assert pack.run(spec(folder / "whole", [job]), say=lambda line: None) == "done"

    results = folder / "r"
    process = start(*arguments)
    wait_for(lambda: len(list(results.glob("*/*/*/*/done.json"))) >= 1, what="the first finished run")
    os.killpg(process.pid, signal.SIGKILL)
    ends(process)
    finished = {path: path.read_bytes() for path in results.glob("*/*/*/*/done.json")}
    assert 1 <= len(finished) < 4
    done = bench(*arguments)
    assert done.returncode == 0, done.stderr
    assert f"{len(finished)} done, {4 - len(finished)} to do" in done.stdout
    for path, before in finished.items():
        assert path.read_bytes() == before
        assert len(read_run(path.parent).meta["attempts"]) == 1
    for job in grid:
        assert substance(results / job.path) == substance(folder / "whole" / job.path)


@pytest.mark.slow
def test_two_launchers_share_a_grid(folder: Path) -> None:
    arguments = (*RUN, "--seeds", "4", "--algos", "stub:delay=0.02", "--jobs", "1", "--set", "steps=250")
    both = [start(*arguments) for _ in range(2)]
    outcomes = [ends(process, 240) for process in both]
    assert [code for code, _ in outcomes] == [0, 0], outcomes
    runs = list((folder / "results").glob("*/*/*/seed-*"))
    assert len(runs) == 4
    attempts = [attempt for path in runs for attempt in read_run(path, verify=True).meta["attempts"]]
    assert len(attempts) == 4  # every run was done once
    assert {read_run(path).state for path in runs} == {"done"}


def test_default_of_jobs(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    monkeypatch.setattr(local, "available_cores", lambda: 3)
    _, out, _ = told(capsys, *RUN)
    assert "2 to do, 3 at once" in out
