"""Where a number comes from: complete, without names and paths, also where there is no git."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from bench.machine import hardware, provenance
from bench.machine.behaviour import BEHAVIOUR

SLURM = {
    "SLURM_JOB_ID": "77",
    "SLURM_ARRAY_JOB_ID": "70",
    "SLURM_ARRAY_TASK_ID": "7",
    "SLURM_RESTART_COUNT": "2",
    "SLURM_JOB_NODELIST": "node[1-2]",
}


@pytest.fixture(autouse=True)
def outside_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SLURM:
        monkeypatch.delenv(name, raising=False)


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "suite"
    for name in (
        "algos/qsm.py",
        "algos/sac.py",
        "bench/training/trainer.py",
        "bench/envs/tasks.py",
        "bench/report.py",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"# {name}\n")
    git(root.parent, "init", str(root))
    git(root, "add", ".")
    git(root, "commit", "-m", "first")
    return root


def test_the_record_is_whole_and_gives_nobody_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "zaphod")
    monkeypatch.setenv("SOME_TOKEN", "hunter2")
    record = provenance.provenance()
    text = json.dumps(record)
    keys = {"git", "behaviour", "code_digest", "versions", "hardware", "os", "threads", "scheduler", "host"}
    assert set(record) == keys
    assert record["behaviour"] == BEHAVIOUR
    assert set(record["versions"]) == {"python", "torch", "numpy", "mujoco", "dm-control", "gymnasium"}
    assert all(record["versions"].values())
    assert record["hardware"]["cpu"]
    assert record["hardware"]["gpus"] == []
    assert record["scheduler"] is None
    for private in ("zaphod", "hunter2", str(provenance.ROOT), os.getcwd()):
        assert private not in text


def test_the_code_digest_sees_names_and_bytes_of_what_decides_a_score(checkout: Path) -> None:
    seen = [provenance.code_digest(checkout)]
    (checkout / "bench/report.py").write_text("changed")
    assert provenance.code_digest(checkout) == seen[0]
    for change in (
        lambda: (checkout / "algos/qsm.py").write_text("# changed\n"),
        lambda: (checkout / "algos/qsm.py").rename(checkout / "algos/qsm2.py"),
        lambda: (checkout / "algos/new.py").write_text(""),
        lambda: (checkout / "bench/envs/tasks.py").write_text("# changed\n"),
        lambda: (checkout / "bench/training/trainer.py").unlink(),
        lambda: (checkout / "algos/core").mkdir() or (checkout / "algos/core/agent.py").write_text(""),
    ):
        change()
        seen.append(provenance.code_digest(checkout))
    assert len(set(seen)) == len(seen)


def test_git_state_tells_a_dirty_checkout_and_its_difference(checkout: Path) -> None:
    clean = provenance.git_state(checkout)
    assert clean["commit"]
    assert (clean["dirty"], clean["diff_sha256"], clean["untracked_code"]) == (False, None, False)
    (checkout / "results/quick").mkdir(parents=True)
    (checkout / "results/quick/run.py").write_text("results are no code")
    assert provenance.git_state(checkout) == clean
    (checkout / "algos/new.py").write_text("")
    assert provenance.git_state(checkout) == clean | {"untracked_code": True}
    (checkout / "algos/qsm.py").write_text("# changed\n")
    first = provenance.git_state(checkout)
    assert first["dirty"]
    (checkout / "algos/qsm.py").write_text("# changed again\n")
    assert provenance.git_state(checkout)["diff_sha256"] not in (None, first["diff_sha256"])


def test_a_cluster_profile_is_no_code(checkout: Path) -> None:
    profiles = checkout / "slurm" / "profiles"
    profiles.mkdir(parents=True)
    (profiles / "example.toml").write_text("time = 1\n")
    git(checkout, "add", ".")
    git(checkout, "commit", "-m", "an example")
    clean = provenance.git_state(checkout)
    (profiles / "mine.toml").write_text("time = 2\n")
    (profiles / "example.toml").write_text("time = 3\n")
    assert provenance.git_state(checkout) == clean
    (checkout / "slurm" / "helper.py").write_text("x = 1\n")
    assert provenance.git_state(checkout) == clean | {"untracked_code": True}


@pytest.mark.parametrize(
    "place", ["bench/studies/mine.toml", "my study.toml", "README.md", "docs/page.md", "notes/plan.md"]
)
def test_a_study_or_a_document_of_one_s_own_is_no_code(checkout: Path, place: str) -> None:
    clean = provenance.git_state(checkout)
    (checkout / place).parent.mkdir(parents=True, exist_ok=True)
    (checkout / place).write_text("new\n")
    assert provenance.git_state(checkout) == clean
    if place.startswith("my"):
        return
    git(checkout, "add", ".")
    git(checkout, "commit", "-m", "tracked")
    committed = provenance.git_state(checkout)
    (checkout / place).write_text("changed\n")
    assert provenance.git_state(checkout) == committed


def test_outside_a_checkout_there_is_no_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = {"commit": None, "dirty": None, "diff_sha256": None, "untracked_code": None}
    assert provenance.git_state(checkout / "bench") == nothing  # installed inside somebody else's repository
    assert provenance.git_state(checkout.parent) == nothing
    monkeypatch.setenv("PATH", "")
    assert provenance.git_state(checkout) == nothing


def test_slurms_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    assert provenance.scheduler_ids() == {
        "name": "slurm",
        "job_id": "77",
        "array_job_id": "70",
        "array_task_id": "7",
        "restart_count": 2,
        "nodelist": "node[1-2]",
    }
    monkeypatch.delenv("SLURM_RESTART_COUNT")
    record = provenance.scheduler_ids()
    assert record is not None
    assert record["restart_count"] == 0


def test_threads_are_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("MKL_NUM_THREADS", "secret")
    found = provenance.threads()
    assert (found["OMP_NUM_THREADS"], found["MKL_NUM_THREADS"]) == (3, None)


def test_cores_respect_affinity_and_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4, 5}, raising=False)
    for quotas, cores in (([], 6), ([2.0, 4.0], 2), ([2.9], 2), ([0.5], 1), ([64.0], 6)):
        monkeypatch.setattr(hardware, "_cpu_quotas", lambda quotas=quotas: quotas)
        assert hardware.available_cores() == cores


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def test_quotas_and_limits_of_both_kinds_of_cgroup(tmp_path: Path) -> None:
    proc, mount = tmp_path / "cgroup", tmp_path / "fs"
    write(proc, "0::/user/job/step")
    write(mount / "user/job/step/cpu.max", "max 100000")
    write(mount / "user/job/cpu.max", "150000 100000")
    write(mount / "user/memory.max", "1000000")
    write(mount / "user/job/memory.max", "max")
    assert hardware._cpu_quotas(proc, mount) == [1.5]
    assert hardware._memory_limits(proc, mount) == [1_000_000]

    write(proc, "3:cpu,cpuacct:/docker/abc\n2:memory:/docker/abc\n0::/")  # the host's path, not mounted here
    write(mount / "cpu/cpu.cfs_quota_us", "300000")
    write(mount / "cpu/cpu.cfs_period_us", "100000")
    write(mount / "memory/memory.limit_in_bytes", "5000")
    assert hardware._cpu_quotas(proc, mount) == [3.0]
    assert hardware._memory_limits(proc, mount) == [5000]
    write(mount / "cpu/cpu.cfs_quota_us", "-1")
    assert hardware._cpu_quotas(proc, mount) == []
    assert hardware._cpu_quotas(tmp_path / "none", mount) == []
