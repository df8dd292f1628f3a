"""What would be submitted: tasks, script, estimate. On a machine without Slurm, as DRY=1 may be."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import numpy as np
import pytest
from conftest import EAGER, make_study

from bench.__main__ import main
from bench.errors import UserError
from bench.launch.rates import measured_rates
from bench.launch.slurm import arrays
from bench.launch.slurm import submit as slurm
from bench.launch.slurm.profiles import Profile
from bench.runs import FORMAT, Writer, write_study
from bench.studies.job import Job

CUDA = {"mode": "auto", "device": "cuda"}


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


def dry(root: Path, profile: Profile, packs: list[list[Job]] | None = None, **options) -> slurm.Submission:
    study = make_study("study", seeds=6)
    packs = [[job] for job in study.jobs()] if packs is None else packs
    return slurm.submit(root, study, packs, profile, **{"execution": EAGER, "dry": True, **options})


def seeds(submission: slurm.Submission) -> list[list[list[int]]]:
    return [[[job.seed for job in pack] for pack in task] for task in submission.tasks]


def test_a_folder_that_slurm_would_take_for_a_pattern_is_refused(commands, tmp_path, profile):
    """Its tasks' logs could not be opened, and the tasks would end without a word."""
    commands.slurm()
    study = make_study("study")
    packs = [[job] for job in study.jobs()]
    with pytest.raises(UserError, match="Slurm takes % for a pattern: name another folder"):
        slurm.submit(tmp_path / "100%a", study, packs, profile(), execution=EAGER)
    assert not commands.calls("sbatch")


def test_without_slurm_nothing_can_be_submitted_and_nothing_is_written(tmp_path, profile):
    with pytest.raises(UserError, match="there is no sbatch here"):
        dry(tmp_path / "results", profile(), dry=False)
    dry(tmp_path / "results", profile())
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("folder", "said"), [("r", "there is no sbatch here"), ("100%a", "takes % for a pattern")]
)
def test_the_command_that_cannot_submit_writes_nothing(tmp_path, monkeypatch, capsys, folder, said):
    if "%" in folder:
        monkeypatch.setattr(slurm.sbatch, "need_slurm", lambda: None)
    (tmp_path / "p.toml").write_text('time = "01:00:00"\n')
    command = [
        "slurm",
        "--algos",
        "sac",
        "--profile",
        str(tmp_path / "p.toml"),
        "--results",
        str(tmp_path / folder),
    ]
    assert main(command) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / folder).exists()


def test_packs_are_dealt_out_to_tasks(tmp_path, profile):
    assert seeds(dry(tmp_path, profile())) == [[[k]] for k in range(6)]
    assert seeds(dry(tmp_path, profile(jobs_per_task="4"))) == [[[0], [1], [2], [3]], [[4], [5]]]
    assert seeds(dry(tmp_path, profile(jobs_per_task="4"), jobs_per_task=3)) == [
        [[0], [1], [2]],
        [[3], [4], [5]],
    ]
    whole_node = dry(tmp_path, profile(cpus="4"))
    assert seeds(whole_node) == [[[0], [1], [2], [3]], [[4], [5]]]  # never fewer than run at once
    jobs = make_study("study", seeds=6).jobs()
    two_gpus = profile(gpus="2", jobs_per_gpu="2")
    assert seeds(dry(tmp_path, two_gpus, [jobs[:5], jobs[5:]], execution=CUDA)) == [[[0, 1, 2, 3, 4], [5]]]


def test_script_asks_for_what_the_profile_says(tmp_path, profile):
    asked = profile(
        time='"1-02:00:00"',
        account='"me"',
        cpus="4",
        qos='"long"',
        constraint='"zen3"',
        gpus="2",
        gpu_type='"a100"',
        signal_delay="90",
        setup='["module load x"]',
        array_parallelism="3",
        sbatch='{ exclude = "n7", no-kill = true }',
    )
    script = dry(tmp_path, asked, jobs_per_task=1).script
    flags = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", script, re.MULTILINE))
    expected = {
        "partition": "main",
        "account": "me",
        "qos": "long",
        "constraint": "zen3",
        "time": "1560",
        "gres": "gpu:a100:2",
        "signal": f"{signal.SIGUSR2.name[3:]}@90",
        "exclude": "n7",
        "no-kill": "",
        "requeue": "",
        "array": "0-2%3",
    }
    assert {key: flags[key] for key in expected} == expected
    assert "wckey" not in flags
    assert "\nmodule load x\n" in script
    assert re.search(r"^srun .*--cpus-per-task=4 ", script, re.MULTILINE)
    assert "--array" not in dry(tmp_path, asked, jobs_per_task=6).script


def test_estimate_counts_what_is_held(tmp_path, profile):
    def hours(keys, packs=None, **options):
        return dry(tmp_path, profile(**keys), packs, **options).hours

    hour = lambda job, device: 3600.0  # noqa: E731
    assert hours({}, rates=hour) == 6
    assert hours({"cpus": "3"}, rates=hour) == 6  # three at once on three cores
    jobs = make_study("study", seeds=6).jobs()
    assert hours({"gpus": "1"}, [jobs], execution=CUDA, rates=hour) == 1  # six seeds in lock-step
    assert hours({"gpus": "1", "jobs_per_gpu": "2"}, [jobs[:3], jobs[3:]], execution=CUDA, rates=hour) == 1
    assert hours({}) is None
    some = dry(tmp_path, profile(), rates=lambda job, device: 1800.0 if job.seed < 2 else None)
    assert (some.hours, some.unrated) == (1.0, 4)
    assert "estimate: 1.0 core-hours, without 4 runs of unknown rate; a task takes up to 30 min" in list(
        some.lines()
    )


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (20.0, "such short tasks burden the scheduler: JOBS_PER_TASK=180 makes one last an hour"),
        (1700.0, ""),
        (5400.0, r"longer than the profile's time: such a task is requeued 3 times.*time = \"00:30:00\""),
    ],
)
def test_a_plan_says_whether_tasks_are_too_short_or_too_long(tmp_path, profile, seconds: float, said: str):
    told = "\n".join(dry(tmp_path, profile(), rates=lambda job, device: seconds).lines())
    assert "a task takes up to" in told
    assert bool(re.search(said or "burden|longer than", told)) == bool(said)


def test_estimate_of_a_pack_is_its_whole_time(tmp_path):
    jobs = make_study("study", seeds=2).jobs()
    seconds = dict.fromkeys(("env_s", "act_s", "update_s", "eval_s", "compile_s", "other_s"), 10.0)
    for job in jobs:  # in lock-step: each has the pack's whole time
        writer = Writer.open(tmp_path, job, execution={}, provenance={})
        writer.append("time.csv", [{"env_step": 600, "attempt": 1, **seconds, "seeds": 2}])
        writer.finish("done", 600, policy=b"")
    study = make_study("study", seeds=2)
    cells = [{key: getattr(job, key) for key in ("env", "algo", "label", "seed", "hash")} for job in jobs]
    write_study(tmp_path, {"format": FORMAT, "study": "study", **study.to_dict(), "grid": cells})
    rate = measured_rates(tmp_path)
    assert [rate(job, "cpu") for job in jobs] == [60.0, 60.0]
    assert rate(make_study("study", steps=1200).jobs()[0], "cpu") == 120.0  # twice the steps
    assert rate(jobs[0], "cuda") is None  # a GPU takes another time


def test_the_pool_of_a_task(profile):
    """Environments step on the cores beside a GPU; a late checkpoint must not cost the requeue."""
    asked = profile(gpus="2", jobs_per_gpu="2", cpus="12", signal_delay="120")
    pool = slurm._options(asked, "auto", "cuda")
    assert (pool.workers, pool.env_workers, pool.stop_grace_s) == (4, 3, 110)
    assert slurm._options(asked, "eager", "cpu").env_workers == 0
    few = slurm._options(profile(cpus="3", signal_delay="15"), "eager", "cpu")
    assert (few.workers, few.env_workers, few.stop_grace_s) == (3, 0, 10)


def test_idle_gpus_are_noticed(tmp_path, profile):
    told = "\n".join(dry(tmp_path, profile(gpus="2")).lines())
    assert re.search(
        r"DEVICE=cpu leaves the GPUs idle; DEVICE=cuda uses them \[.*changed.toml: gpus = 2\]", told
    )
    assert "GPUs idle" not in "\n".join(dry(tmp_path, profile(gpus="2"), execution=CUDA).lines())


def test_gpu_runs_need_a_gpu_profile(tmp_path, profile):
    with pytest.raises(
        UserError, match=r"DEVICE=cuda needs a profile with GPUs; .*changed.toml: gpus is not set"
    ):
        dry(tmp_path, profile(), execution=CUDA)


@pytest.mark.parametrize(("gpus", "packs"), [("0", ["0", "1", "2"]), ("1", ["0,1,2"])])
def test_the_device_is_that_of_the_profile(tmp_path, profile, capsys, gpus: str, packs: list[str]):
    profile(gpus=gpus)
    command = ["slurm", "--algos", "sac", "--seeds", "3", "--dry", "1"]
    command += ["--profile", str(tmp_path / "changed.toml")]
    assert main([*command, "--results", str(tmp_path / "results")]) == 0
    told = capsys.readouterr().out
    assert re.findall(r"^task \d+: .*/sac seeds? (.*)$", told, re.MULTILINE) == packs
    assert "GPUs idle" not in told


def test_finished_failed_and_busy_runs_are_left_out(tmp_path, profile):
    jobs = make_study("study", seeds=6).jobs()
    writers = [Writer.open(tmp_path, job, execution={}, provenance={}) for job in jobs[:4]]
    writers[0].finish("done", 600, policy=b"")
    writers[1].finish("diverged", 300, policy=b"", reason="loss is nan")
    writers[2].fail("ValueError: no")
    left = dry(tmp_path, profile(), [jobs])
    assert (seeds(left), left.finished, left.failed, left.busy) == ([[[4, 5]]], 2, 1, 1)
    again = dry(tmp_path, profile(), [jobs], retry_failed=True)
    assert (seeds(again), again.failed) == ([[[2, 4, 5]]], 0)
    writers[3].release()
    assert seeds(dry(tmp_path, profile(), [jobs])) == [[[3, 4, 5]]]


def test_cancel_says_where_nothing_was_submitted(tmp_path):
    arrays.folder(tmp_path, "study-steps=400").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no jobs of a study 'study' were .*; there are study-steps=400"):
        slurm.cancel(tmp_path, "study")


def test_a_run_of_another_configuration_stops_everything(tmp_path, profile):
    other = make_study("study", seeds=1, delay=1.0).jobs()[0]
    Writer.open(tmp_path, other, execution={}, provenance={}).release()
    with pytest.raises(UserError, match=r"config.delay is 1.0 there and 0.0 here"):
        dry(tmp_path, profile())


def test_gpus_are_not_asked_for_what_a_cpu_has_half_trained(tmp_path, profile):
    job = make_study("study", seeds=1).jobs()[0]
    run = Writer.open(tmp_path, job, execution={"device": "cpu"}, provenance={})
    run.save_checkpoint(50, b"state", np.zeros((50, 3), np.float32), 0, keep_from_row=0)
    run.release()
    by_profile = {"mode": "auto", "device": ""}
    assert seeds(dry(tmp_path, profile(), [[job]], execution=by_profile)) == [[[0]]]
    with pytest.raises(UserError, match=r"trained on cpu up to step 50, .* DEVICE=cpu"):
        dry(tmp_path, profile(gpus="1"), [[job]], execution=by_profile)
