"""The one way to Slurm's commands: what the user's shell may change, and what a command's silence or noise means."""

from __future__ import annotations

import ast
import time
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.launch.slurm import client

ROOM = Path(client.__file__).parent
COMMANDS = {"sbatch", "squeue", "sacct", "scancel", "scontrol", "sinfo", "srun", "salloc"}


@pytest.mark.seconds
@pytest.mark.parametrize("path", sorted(ROOM.parents[1].rglob("*.py")), ids=lambda path: path.stem)
def test_every_command_of_slurm_goes_through_one_function(path: Path) -> None:
    """So that a command that is added later has the same environment, patience and errors."""
    tree = ast.parse(path.read_text())
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        for first in (arg.elts[:1] for arg in call.args if isinstance(arg, ast.List)):
            if isinstance(first[0] if first else None, ast.Constant) and first[0].value in COMMANDS:
                assert ast.unparse(call.func) in ("client.ask", "ask"), ast.unparse(call)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and path.parent == ROOM:
            names = [alias.name for alias in node.names]
            starts = "subprocess" in names or getattr(node, "module", "") == "subprocess"
            # task.py and start.py start Python
            assert not starts or path.name in ("client.py", "task.py", "start.py"), path.name


MISLEADING = {
    "SQUEUE_USERS": "nobody",
    "SQUEUE_STATES": "RUNNING",
    "SCANCEL_STATE": "PENDING",
    "SACCT_FORMAT": "jobid",
    "SLURM_CLUSTERS": "other",
    "SBATCH_PARTITION": "debug",
    "SBATCH_GRES": "gpu:8",
    "SLURM_JOB_ID": "5",  # of the job in which the suite itself may run
    "SRUN_CPUS_PER_TASK": "9",
    "SCONTROL_FUTURE": "1",
}


@pytest.mark.parametrize("command", ["squeue", "sbatch", "scancel", "sacct", "scontrol"])
def test_no_variable_of_the_shell_reaches_a_command(commands, monkeypatch, command: str) -> None:
    for name, value in MISLEADING.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_CONF", "/etc/other/slurm.conf")
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    commands.answer(command, "")
    client.ask([command])
    given = commands.environment(command)
    assert not MISLEADING.keys() & given.keys()
    assert (given["SLURM_CONF"], given["SCRATCH"]) == ("/etc/other/slurm.conf", "/scratch/me")


def test_what_was_meant_is_honoured_and_what_was_dropped_is_said() -> None:
    outer = MISLEADING | {
        "SBATCH_ACCOUNT": "group7",
        "SBATCH_EXPORT": "NONE",
        "SQUEUE_FORMAT": "%i",
        "SBATCH_QOS": "",
    }
    assert client.meant(outer) == {"account": "group7", "partition": "debug"}
    said = client.dropped(outer)
    for name in ("SQUEUE_USERS", "SCANCEL_STATE", "SBATCH_GRES", "SBATCH_EXPORT", "SLURM_CLUSTERS"):
        assert name in said
    # taken, or nobody's loss
    for name in (
        "SBATCH_ACCOUNT",
        "SQUEUE_FORMAT",
        "SLURM_JOB_ID",
        "SACCT_FORMAT",
    ):
        assert name not in said
    assert client.dropped({"PATH": "/bin", "SLURM_CONF": "x", "SLURM_JOB_ID": "5"}) == ""


def test_a_command_that_hangs_is_ended_with_all_it_started_and_said_so(commands, monkeypatch) -> None:
    monkeypatch.setattr(client, "SAY_AFTER_S", 0.1)
    commands.script("squeue", "sleep 60")
    said: list[str] = []
    begun = time.monotonic()
    with pytest.raises(client.NoAnswer, match="Slurm does not answer: squeue took longer than 1 s"):
        client.ask(["squeue"], timeout=1.0, say=said.append)
    assert time.monotonic() - begun < 30
    assert said == ["asking Slurm (squeue) ..."]


def test_a_quick_command_is_not_talked_about(commands) -> None:
    said: list[str] = []
    commands.answer("squeue", "x\n")
    assert client.ask(["squeue"], say=said.append) == "x\n"
    assert said == []


def test_sbatch_that_tries_again_by_itself_says_so_at_once(commands) -> None:
    said: list[str] = []
    waits = "sbatch: Slurm temporarily unable to accept job, sleeping and retrying"
    commands.script("sbatch", f"echo '{waits}' >&2\necho '{waits}' >&2\necho 5")
    assert client.ask(["sbatch"], say=said.append) == "5\n"
    assert said == ["Slurm's queue is full for now (MaxJobCount); sbatch tries again for some minutes"]


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("slurm_load_jobs error: Unable to contact slurm controller (connect failure)", client.NoAnswer),
        (
            "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
            client.NoAnswer,
        ),
        ("slurm_load_jobs error: Zero Bytes were transmitted or received", client.NoAnswer),
        ("sbatch: error: Batch job submission failed: Message receive failure", client.NoAnswer),
        ("slurm_load_jobs error: Header lengths are longer than data received", client.NoAnswer),
        ("sbatch: error: Batch job submission failed: No route to host", client.NoAnswer),
        ("sbatch: error: Batch job submission failed: Interrupted system call", client.NoAnswer),
        ("sbatch: error: Batch job submission failed: Invalid partition name specified", client.Refused),
        ("sbatch: error: Invalid --network specification", client.Refused),
        ("scancel: error: Kill job error on job id 5: Access/permission denied", client.Refused),
    ],
)
def test_silence_is_no_refusal(commands, words: str, kind: type[UserError]) -> None:
    commands.script("sbatch", f"echo '{words}' >&2\nexit 1")
    with pytest.raises(kind):
        client.ask(["sbatch"])


def test_a_command_that_is_not_there(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(client.NoAnswer, match="there is no sacct here"):
        client.ask(["sacct"])
