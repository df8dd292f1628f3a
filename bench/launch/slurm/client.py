"""The only code that calls Slurm's commands: their environment, time limits, and messages while they run.

Variables of the user's shell change what these commands do (SQUEUE_USERS hides jobs, SCANCEL_STATE spares some,
SBATCH_PARTITION outdoes a batch script, SLURM_CLUSTERS asks another cluster), and so does a Slurm job in which the
suite itself may run. None of them reaches a command of Slurm; what a user may have meant is in `meant` and `dropped`.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress

from bench.errors import UserError
from bench.text import one_line

TIMEOUT_S = 60.0  # Slurm's own MessageTimeout is 10 s, with retries
SAY_AFTER_S = 2.0  # of silence

#: Which configuration and which key a command uses: without these it would ask another cluster, or none.
KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT")
PREFIXES = (
    "SLURM_",
    "SLURMD_",
    "SRUN_",
    "SALLOC_",
    "SBATCH_",
    "SQUEUE_",
    "SCANCEL_",
    "SACCT_",
    "SCONTROL_",
    "SINFO_",
)
#: Defaults that sites and users give by sbatch's variables, and the key of the profile (or sbatch's option) for each.
MEANT = {
    "SBATCH_ACCOUNT": "account",
    "SBATCH_PARTITION": "partition",
    "SBATCH_QOS": "qos",
    "SBATCH_CONSTRAINT": "constraint",
    "SBATCH_RESERVATION": "reservation",
    "SBATCH_WCKEY": "wckey",
}
#: They only change what is printed, so they are dropped silently.
_PRINTING = re.compile(r"S[A-Z]+_(FORMAT2?|SORT|TIME_FORMAT|BITSTR_LEN|DEBUG|COLOR)")
_FILTERS = re.compile(r"(SBATCH|SQUEUE|SCANCEL|SACCT|SCONTROL)_\w+|SLURM_CLUSTERS|SLURM_FEDERATION")

_BUSY = r"temporarily unable to accept job"  # sbatch then tries again by itself, for minutes


class NoAnswer(UserError):
    """Slurm's command did not come, did not end, or could not reach its controller: nothing is known."""


class Refused(UserError):
    """Slurm's command ended with an error. `said`: its words, in their lines; `code`: its exit code."""

    def __init__(self, command: str, said: str, code: int):
        super().__init__(f"{command}: {one_line(said) or f'exit code {code}'}")
        self.said, self.code = said, code


def environment(outer: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of every command of Slurm: `outer` (this process's) without variables that change its answer."""
    outer = os.environ if outer is None else outer
    return {name: value for name, value in outer.items() if name in KEPT or not name.startswith(PREFIXES)}


def meant(outer: Mapping[str, str] | None = None) -> dict[str, str]:
    """Per key of `MEANT` the default that the environment gives and that a profile may leave to it."""
    outer = os.environ if outer is None else outer
    return {key: outer[name] for name, key in MEANT.items() if outer.get(name)}


def dropped(outer: Mapping[str, str] | None = None) -> str:
    """A line that names the variables that would have changed what is submitted, seen or cancelled; "" without any."""
    outer = os.environ if outer is None else outer
    names = sorted(
        name
        for name in outer
        if _FILTERS.fullmatch(name) and name not in MEANT and not _PRINTING.fullmatch(name) and outer[name]
    )
    if not names:
        return ""
    cluster = "; another cluster is chosen by SLURM_CONF" if "SLURM_CLUSTERS" in names else ""
    options = "; options belong in the profile" if any(name.startswith("SBATCH_") for name in names) else ""
    return f"not taken over from your environment: {', '.join(names)}{options}{cluster}"


def ask(command: list[str], *, timeout: float = TIMEOUT_S, say: Callable[[str], None] | None = None) -> str:
    """The output of a command of Slurm.

    Raises:
        NoAnswer: there is no such command here, it took longer than `timeout` seconds, or its controller is away.
        Refused: it ended with an error for another reason.
    """
    say = say or _to_stderr
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment(),
            start_new_session=True,  # so that what it starts ends with it
        )
    except OSError:
        raise NoAnswer(f"there is no {command[0]} here: is this the login node of a Slurm cluster?") from None
    with process:
        errors: list[str] = []
        reader = threading.Thread(target=_listen, args=(process, errors, say), daemon=True)
        slow = threading.Timer(SAY_AFTER_S, say, [f"asking Slurm ({command[0]}) ..."])
        stop = threading.Timer(timeout, _end, [process])
        for thread in (reader, slow, stop):
            thread.daemon = True
            thread.start()
        try:
            assert process.stdout is not None
            printed = process.stdout.read()
            process.wait()
            reader.join(1.0)
            late = not stop.is_alive()
        finally:
            slow.cancel()
            stop.cancel()
            if process.returncode is None:
                _end(process)
    said = "".join(errors) or printed
    if late and process.returncode < 0:
        raise NoAnswer(f"Slurm does not answer: {command[0]} took longer than {timeout:.0f} s")
    if process.returncode:
        if is_silence(said):
            raise NoAnswer(f"Slurm does not answer: {one_line(said)}")
        raise Refused(command[0], said, process.returncode)
    return printed


def is_silence(said: str) -> bool:
    """Whether a command's output says that it got no answer, rather than giving one."""
    return bool(
        re.search(
            r"timed? ?out|unable to contact|connection|communication|transport|zero bytes|standby|socket"
            r"|unexpected message|protocol|i/o error|address|munge|credential|resolve|broken pipe|interrupted"
            r"|message receive|data received|no route to host|network is (down|unreachable)|host is down",
            said,
            re.IGNORECASE,
        )
    )


def _end(process: subprocess.Popen[str]) -> None:
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)


def _listen(process: subprocess.Popen[str], errors: list[str], say: Callable[[str], None]) -> None:
    assert process.stderr is not None
    reported = False
    for line in process.stderr:
        errors.append(line)
        if not reported and re.search(_BUSY, line):
            reported = True
            say("Slurm's queue is full for now (MaxJobCount); sbatch tries again for some minutes")


def _to_stderr(line: str) -> None:
    print(f"bench: {line}", file=sys.stderr, flush=True)
