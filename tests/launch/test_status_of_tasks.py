"""What `make status` makes of runs and Slurm together. Slurm's answers are given, or its commands are stand-ins."""

from __future__ import annotations

import io
import json
import re
import shutil
import time
from pathlib import Path

import pytest
from rich.console import Console

from bench.__main__ import main
from bench.launch import status
from bench.launch.slurm import arrays, client
from bench.launch.slurm.queue import Answer
from bench.machine.provenance import code_digest
from bench.runs import FORMAT, Writer, read_study, write_study
from bench.studies.job import Job
from tests.launching import stub_study


def grid(root: Path, seeds: int = 4, name: str = "s") -> list[Job]:
    study = stub_study(name, algo="sac", env="Pendulum-v1", seeds=seeds)
    jobs = study.jobs()
    cells = [{key: getattr(job, key) for key in ("env", "algo", "label", "seed", "hash")} for job in jobs]
    write_study(root, {"format": FORMAT, "study": name, **study.to_dict(), "grid": cells})
    return jobs


def submitted(root: Path, jobs: list[Job], job: str = "77", digest: str | None = None) -> arrays.Array:
    """The record of an array with a task for each run."""
    folder = arrays.folder(root, jobs[0].study)
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    made = arrays.new_array(folder, "runs", [[str(job.path)] for job in jobs])
    made = arrays.Array(**{**vars(made), "job": job})
    arrays.write_array(folder, made)
    if digest:
        arrays.work_file(folder, made.token).write_text(
            json.dumps({"format": 1, "kind": "runs", "root": "r", "code_digest": digest})
        )
    return made


def told(root: Path, known: dict[int, tuple[str, str, str]], array: arrays.Array, problem: str = "") -> str:
    """What is printed where Slurm knows these tasks: index -> state, reason, node."""
    answer = Answer({(array.name, k): (array.job or "", *rest) for k, rest in known.items()}, problem)
    (found,) = status.look([read_study(root, array.name.rpartition(".")[0])], ask=lambda arrays: answer)
    console = Console(file=io.StringIO(), width=300)
    status.show(found, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def start(root: Path, job: Job) -> Writer:
    return Writer.open(root, job, execution={}, provenance={})


def write_log(root: Path, task: str, text: str) -> Path:
    log = arrays.log_file(arrays.folder(root, "s"), task)
    log.write_text(text)
    return log


@pytest.mark.seconds
def test_two_thousand_queued_runs_are_a_column_and_a_line(tmp_path: Path) -> None:
    jobs = grid(tmp_path, seeds=2000)
    array = submitted(tmp_path, jobs)
    out = told(tmp_path, dict.fromkeys(range(2000), ("PENDING", "Priority", "")), array)
    assert "s: 2000 runs: 2000 queued" in out
    assert "missing" not in out.replace("done running missing", "").partition("\n")[0]
    lines = [line for line in out.splitlines() if "(Priority)" in line]
    assert lines == ["2000 runs (Pendulum-v1/sac/seed-0, ...): queued (Priority), job 77"]


def test_a_thousand_cancelled_runs_are_a_line(tmp_path: Path) -> None:
    """Whatever their logs say of job, node and time."""
    jobs = grid(tmp_path, seeds=1000)
    array = submitted(tmp_path, jobs)
    for k in range(1000):
        killed = f"slurmstepd-n{k}: error: *** JOB {6000 + k} ON n{k} CANCELLED AT 2026-11-26T00:26:{k % 60:02} ***"
        write_log(tmp_path, f"77_{k}", f"2026-11-26 00:25:{k % 60:02} begins\n{killed}\n")
    out = told(tmp_path, dict.fromkeys(range(1000), ("CANCELLED", "", "")), array)
    lines = [line for line in out.splitlines() if "CANCELLED" in line]
    what = "1000 runs (Pendulum-v1/sac/seed-0, ...): missing: its task ended as CANCELLED (job 77_0, log "
    assert len(lines) == 1
    assert lines[0].startswith(what)


def test_a_run_that_waits_for_its_turn_in_a_running_task_is_queued(tmp_path: Path) -> None:
    jobs = grid(tmp_path, seeds=2)
    array = submitted(tmp_path, jobs)
    out = told(tmp_path, {0: ("RUNNING", "", "n1"), 1: ("PENDING", "Resources", "")}, array)
    assert "2 queued" in out
    assert "seed-0: queued (for its turn: job 77_0 is running on n1), job 77" in out
    assert "seed-1: queued (Resources), job 77" in out


def test_the_run_s_own_reason_is_shown_while_slurm_remembers_the_job(tmp_path: Path) -> None:
    jobs = grid(tmp_path, seeds=2)
    array = submitted(tmp_path, jobs)
    start(tmp_path, jobs[0]).fail("Traceback\nValueError: alpha is negative")
    log = tmp_path / "s" / "logs" / ("-".join(jobs[0].path.parts[1:]) + ".log")
    log.parent.mkdir()
    log.write_text("alpha is negative\n")
    out = told(tmp_path, {0: ("FAILED", "", "n1"), 1: ("COMPLETED", "", "n1")}, array)
    (line,) = [line for line in out.splitlines() if "seed-0: failed" in line]
    assert f"failed: ValueError: alpha is negative; its task ended as FAILED (job 77_0, log {log})" in line


@pytest.mark.parametrize(
    ("ids", "state"),
    [
        ({"job_id": "78", "array_job_id": "77", "array_task_id": "0"}, "failed: ValueError: no (job 77_0, "),
        ({"job_id": "12", "array_job_id": "9", "array_task_id": "0"}, "queued (for its turn"),  # RETRY=1
        (None, "queued (for its turn"),  # it failed in `make bench`
    ],
)
def test_a_run_that_failed_is_no_longer_queued_while_its_task_runs_others(
    tmp_path: Path, ids: dict[str, str] | None, state: str
) -> None:
    jobs = grid(tmp_path, seeds=2)
    array = submitted(tmp_path, jobs)
    Writer.open(tmp_path, jobs[0], execution={}, provenance={"scheduler": ids}).fail("ValueError: no")
    out = told(tmp_path, {0: ("RUNNING", "", "n1"), 1: ("PENDING", "Priority", "")}, array)
    (line,) = [line for line in out.splitlines() if "seed-0: " in line]
    assert f"seed-0: {state}" in line
    assert "ended" not in line


@pytest.mark.parametrize("known", [True, False])
def test_a_task_that_died_before_its_run_began_shows_its_last_words(tmp_path: Path, known: bool) -> None:
    """Whether Slurm still knows the job, or has forgotten it."""
    jobs = grid(tmp_path, seeds=1)
    array = submitted(tmp_path, jobs, "63")
    noise = "srun: error: n1: task 0: Exited with exit code 1\nsrun: Terminating StepId=63.0\n\n"
    log = write_log(tmp_path, "63", f"/usr/bin/python: No module named bench\n{noise}")
    out = told(tmp_path, {0: ("FAILED", "", "n1")} if known else {}, array)
    (line,) = [line for line in out.splitlines() if "seed-0: missing" in line]
    word = "FAILED" if known else "no longer known to Slurm"
    assert f"{word}: /usr/bin/python: No module named bench (job 63, log {log})" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "slurmstepd-n1: error: *** JOB 5 ON n1 CANCELLED AT 2026-11-26T00:26:26 DUE TO TIME LIMIT ***",
            "CANCELLED DUE TO TIME LIMIT",
        ),
        ("2026-11-26 00:25:01 n1 cannot carry these runs: no GPU", "n1 cannot carry these runs: no GPU"),
        (
            "ImportError: libcuda.so.1\nsrun: error: n1: task 0: Exited with exit code 1",
            "ImportError: libcuda.so.1",
        ),
        (
            "slurmstepd: error: Detected 1 oom_kill event.\nsrun: error: n1: task 0: Killed",
            "Detected 1 oom_kill event.",
        ),
        (
            "slurmstepd-n1: error: Exceeded job memory limit\n"
            "slurmstepd-n1: error: *** STEP 6.0 ON n1 CANCELLED AT 2026-11-26T00:28:03 ***\n"
            "slurmstepd-n1: error: StepId=6.0 exceeded memory limit (1502920704 > 1363148800), being killed",
            "Exceeded job memory limit",
        ),
    ],
)
def test_the_words_that_say_something_are_chosen(tmp_path: Path, words: str, said: str) -> None:
    jobs = grid(tmp_path, seeds=1)
    array = submitted(tmp_path, jobs)
    log = write_log(tmp_path, "77", words + "\n")
    out = told(tmp_path, {0: ("TIMEOUT", "", "n1")}, array)
    assert f"its task ended as TIMEOUT: {said} (job 77, log {log})" in out


def test_a_task_without_a_log_says_where_it_should_be(tmp_path: Path) -> None:
    jobs = grid(tmp_path, seeds=1)
    out = told(tmp_path, {0: ("NODE_FAIL", "", "n1")}, submitted(tmp_path, jobs))
    assert "NODE_FAIL (job 77, no log at " in out


def test_where_slurm_is_silent_the_ids_still_show(tmp_path: Path) -> None:
    jobs = grid(tmp_path, seeds=1)
    out = told(tmp_path, {}, submitted(tmp_path, jobs, "63"), problem="Slurm does not answer: timed out")
    assert "missing: submitted, and Slurm does not answer (job 63, " in out
    assert "Slurm does not answer: timed out" in out


def test_why_a_run_began_again_is_shown_while_it_runs(tmp_path: Path) -> None:
    (job,) = grid(tmp_path, seeds=1)
    run = start(tmp_path, job)
    run.heartbeat(env_step=70)
    run.release()
    again = start(tmp_path, job)
    again.heartbeat(env_step=1)
    (found,) = status.look([read_study(tmp_path, "s")])
    console = Console(file=io.StringIO(), width=300)
    status.show(found, console)
    line = "begun again at step 0: no checkpoint; the attempt before had come to step 70"
    assert line in console.file.getvalue()  # type: ignore[attr-defined]
    assert found.record()["runs"][0]["restarted"]


def test_tasks_that_will_run_other_code_than_was_submitted_are_said(tmp_path: Path) -> None:
    jobs = grid(tmp_path, seeds=3)
    array = submitted(tmp_path, jobs, digest="0" * 64)
    writer = Writer.open(tmp_path, jobs[0], execution={}, provenance={"code_digest": "1" * 64})
    writer.heartbeat(env_step=1)
    out = told(
        tmp_path, {0: ("RUNNING", "", "n1"), **dict.fromkeys((1, 2), ("PENDING", "Priority", ""))}, array
    )
    assert (
        f"2 runs queued with code {'0' * 12}, now {code_digest()[:12]}: the checkout has changed since" in out
    )
    assert f"1 run submitted with code {'0' * 12}, running {'1' * 12}" in out


def test_tasks_with_the_same_code_are_not_talked_about(tmp_path: Path) -> None:
    jobs = grid(tmp_path, seeds=1)
    array = submitted(tmp_path, jobs, digest=code_digest())
    assert "code" not in told(tmp_path, {0: ("PENDING", "Priority", "")}, array)


def test_the_job_that_builds_the_figures_is_shown(tmp_path: Path) -> None:
    grid(tmp_path, seeds=1)
    folder = arrays.folder(tmp_path, "s")
    folder.mkdir()
    figures = arrays.Array(**{**vars(arrays.new_array(folder, "figures", [["s/figures"]])), "job": "78"})
    arrays.write_array(folder, figures)
    assert "figures: queued (Dependency), job 78" in told(
        tmp_path, {0: ("PENDING", "Dependency", "")}, figures
    )


# Scripts


def scripted(root: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str]:
    code = main(["status", "--study", "s", "--results", str(root), *more])
    return code, capsys.readouterr().out


def test_json_says_all_that_the_lines_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = grid(tmp_path, seeds=3)
    start(tmp_path, jobs[0]).finish("done", 120, policy=b"")
    start(tmp_path, jobs[1]).fail("ValueError: no")
    code, out = scripted(tmp_path, capsys, "--json", "1")
    (study,) = json.loads(out)["studies"]
    assert (code, study["study"], study["counts"]) == (0, "s", {"done": 1, "failed": 1, "missing": 1})
    assert [run["state"] for run in study["runs"]] == ["done", "failed", "missing"]
    assert study["runs"][1]["reason"].startswith("ValueError: no")
    assert study["runs"][1]["path"] == str(tmp_path / jobs[1].path)


def test_the_fields_are_documented(tmp_path: Path) -> None:
    grid(tmp_path, seeds=1)
    (found,) = status.look([read_study(tmp_path, "s")])
    text = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("| `make status JSON=1`"))
    named = re.findall(r"`(\w+)`", line.partition("a run has")[2])
    assert named == list(found.record()["runs"][0])
    assert all(f'"{key}"' in line for key in found.record())


def test_the_exit_code_says_how_a_grid_stands_where_asked_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = grid(tmp_path, seeds=2)
    codes = [scripted(tmp_path, capsys, "--exit-code", "1")[0]]
    start(tmp_path, jobs[0]).fail("ValueError: no")
    codes.append(scripted(tmp_path, capsys, "--exit-code", "1")[0])
    for job in jobs:
        start(tmp_path, job).finish("done", 120, policy=b"")
    codes.append(scripted(tmp_path, capsys, "--exit-code", "1")[0])
    (tmp_path / jobs[0].path / "done.json").write_text("{")
    codes.append(scripted(tmp_path, capsys, "--exit-code", "1")[0])
    assert codes == [3, 1, 0, 2]


def test_watching_ends_when_nothing_moves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = grid(tmp_path, seeds=1)
    run = start(tmp_path, job)
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        run.finish("done", 120, policy=b"")

    monkeypatch.setattr("bench.commands.grid.time.sleep", sleep)
    code, out = scripted(tmp_path, capsys, "--watch", "15")
    assert (code, waited) == (0, [15])
    assert ("1 running" in out, "1 done" in out) == (True, True)


# Asking


@pytest.fixture
def bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for stand-ins of Slurm's commands."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def stand_in(folder: Path, name: str, body: str) -> None:
    (folder / name).write_text(f'#!/bin/sh\necho "$@" >>{folder}/{name}.calls\n{body}\n')
    (folder / name).chmod(0o755)


def calls(folder: Path, name: str) -> int:
    file = folder / f"{name}.calls"
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_a_squeue_that_hangs_is_waited_for_once_however_many_studies(
    tmp_path: Path, bin: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client, "SAY_AFTER_S", 0.1)
    monkeypatch.setattr(client.ask, "__kwdefaults__", {"timeout": 1.0, "say": None})
    stand_in(bin, "squeue", "sleep 60")
    for name in ("s", "t", "u"):
        submitted(tmp_path / "r", grid(tmp_path / "r", 1, name))
    begun = time.monotonic()
    assert main(["status", "--results", str(tmp_path / "r")]) == 0
    assert time.monotonic() - begun < 60
    told = capsys.readouterr()
    assert told.out.count("Slurm does not answer: squeue took longer than 1 s") == 3
    assert told.err.count("asking Slurm (squeue) ...") == 1
    assert calls(bin, "squeue") == 1


def test_a_sacct_that_hangs_leaves_what_squeue_says(
    tmp_path: Path, bin: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client.ask, "__kwdefaults__", {"timeout": 1.0, "say": None})
    array = submitted(tmp_path / "r", grid(tmp_path / "r", 2))
    stand_in(bin, "squeue", f"echo '77|1|PENDING|Resources||{array.name}'")
    stand_in(bin, "sacct", "sleep 60")
    begun = time.monotonic()
    assert main(["status", "--results", str(tmp_path / "r")]) == 0
    assert time.monotonic() - begun < 60
    out = capsys.readouterr().out
    assert "1 queued" in out
    assert "1 missing" in out
    assert "seed-1: queued (Resources), job 77" in out


@pytest.mark.parametrize(
    "decorated",
    ["\x1b[0m{good}\x1b[0m", "{good}\r", "  {good}  ", "{good}\n{good}", "77|N/A|PENDING|(null)|\n{good}"],
)
def test_a_line_in_other_dress_is_read_or_skipped(
    tmp_path: Path, bin: Path, decorated: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Colours of a wrapper, ends of lines of another system, a shorter format."""
    array = submitted(tmp_path / "r", grid(tmp_path / "r", 1))
    (bin / "said").write_text(decorated.format(good=f"77|N/A|PENDING|Priority||{array.name}"), newline="")
    stand_in(bin, "squeue", f"cat {bin}/said")
    assert main(["status", "--study", "s", "--results", str(tmp_path / "r")]) == 0
    out = capsys.readouterr().out
    assert "1 queued" in out or "Slurm does not answer: squeue printed" in out


def test_one_sacct_for_all_studies_and_only_about_unfinished_runs(tmp_path: Path, bin: Path) -> None:
    found = []
    for name, job in (("s", "77"), ("t", "78"), ("u", "79")):
        jobs = grid(tmp_path / "r", 2, name)
        found.append(submitted(tmp_path / "r", jobs, job))
        if name == "u":
            for each in jobs:
                start(tmp_path / "r", each).finish("done", 120, policy=b"")
    stand_in(bin, "squeue", f"echo '77|1|RUNNING|None|n1|{found[0].name}'")  # one of the two still lives
    stand_in(
        bin, "sacct", f"echo '77_0|TIMEOUT|n1|{found[0].name}'; echo '78_0|OUT_OF_MEMORY|n2|{found[1].name}'"
    )
    studies = [read_study(tmp_path / "r", name) for name in ("s", "t", "u")]
    first, second, _ = status.look(studies)
    assert calls(bin, "sacct") == 1
    assert "--jobs=77,78" in (bin / "sacct.calls").read_text()
    assert "its task ended as TIMEOUT" in first.runs[0].reason
    assert first.runs[1].state == "queued"
    assert "its task ended as OUT_OF_MEMORY" in second.runs[0].reason


@pytest.mark.parametrize(
    ("printed", "state"),
    [
        ("*** maintenance on Monday | all day | bring | a | book ***\n{good}", "queued"),
        ("CLUSTER: one\n{good}\nCLUSTER: two", "queued"),
        ("{good}\n77|x|PENDING\n|||||\n\x00\x07", "queued"),
        ("slurmdbd: accounting storage is disabled", "missing"),
    ],
)
def test_an_unexpected_line_ends_no_command(
    tmp_path: Path, bin: Path, printed: str, state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    array = submitted(tmp_path / "r", grid(tmp_path / "r", 1))
    (bin / "said").write_text(printed.format(good=f"77|N/A|PENDING|Priority||{array.name}"))
    stand_in(bin, "squeue", f"cat {bin}/said")
    stand_in(bin, "sacct", f"cat {bin}/said")
    for name in ("sbatch", "scancel", "scontrol"):
        stand_in(bin, name, "")
    assert main(["status", "--study", "s", "--results", str(tmp_path / "r")]) == 0
    out = capsys.readouterr().out
    assert f"1 {state}" in out
    assert ("Slurm does not answer: squeue printed 'slurmdbd" in out) == (state == "missing")
    code = main(["cancel", "--study", "s", "--results", str(tmp_path / "r")])
    assert code == (0 if state == "queued" else 2)
    assert "Traceback" not in capsys.readouterr().err


def test_a_damaged_record_leaves_the_rest_of_the_status(tmp_path: Path, bin: Path) -> None:
    array = submitted(tmp_path, grid(tmp_path, 1))
    (arrays.folder(tmp_path, "s") / "array-0badbad0.json").write_text("{")
    out = told(tmp_path, {0: ("PENDING", "Priority", "")}, array)
    assert "seed-0: queued (Priority)" in out
    assert "array-0badbad0.json is damaged" in out
    shutil.rmtree(arrays.folder(tmp_path, "s"))
