"""`make status`: the grid of studies, and runs that need attention with the reason, from disk (and the queue) alone.

For people a table per study and one line per state and reason; for scripts the same as JSON.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.launch.local.display import duration, number
from bench.launch.slurm import arrays as records
from bench.launch.slurm.queue import Ask, Entry, ask_slurm, by_run, entries_of, forgotten
from bench.machine.provenance import code_digest
from bench.runs import FINISHED, NO_CHECKPOINT, STATES, Run, StudyResults
from bench.runs.records import FORMAT
from bench.text import one_line

QUEUED = "queued"  # not a state on disk: the run waits in Slurm's queue, or for its turn in a task that runs
SHOWN = ("done", "running", "missing")  # these always; other states where there are any
ORDER = (*STATES[:3], QUEUED, *STATES[3:])


@dataclass(frozen=True)
class RunStatus:
    """A run and its state in the cluster."""

    run: Run
    name: str  # <env>/<label>/seed-<k>
    state: str  # one of ORDER
    reason: str  # "" where the state says all
    restarted: str = ""  # why it began again at step 0 though an earlier attempt had got further
    entry: Entry | None = None  # its task
    log: Path | None = None  # where to read on, of a run that needs a look

    @property
    def where(self) -> str:
        """Job and log, in brackets: where to read on."""
        job = f"job {self.entry.job}" if self.entry else ""
        log = f"{'log' if self.log.exists() else 'no log at'} {self.log}" if self.log else ""
        found = ", ".join(filter(None, (job, log)))
        return f" ({found})" if found else ""

    def record(self) -> dict[str, Any]:
        """JSON-ready."""
        run, entry = self.run, self.entry
        return {
            "path": str(run.path),
            "env": run.env,
            "algo": run.algo,
            "label": run.label,
            "seed": run.seed,
            "state": self.state,
            "state_on_disk": run.state,
            "reason": self.reason or None,
            "restarted": self.restarted or None,
            "env_step": run.env_step,
            "progress": run.progress or None,
            "job": entry and entry.job,
            "slurm_state": (entry and entry.state) or None,
            "slurm_reason": (entry and entry.reason) or None,
            "node": (entry and entry.node) or None,
            "log": self.log and str(self.log),
        }


@dataclass(frozen=True)
class StudyStatus:
    """The state of a study."""

    study: str
    runs: list[RunStatus]
    figures: Entry | None  # the job that builds its figures
    problems: list[str] = field(default_factory=list)  # a line each

    @property
    def counts(self) -> Counter[str]:
        return Counter(run.state for run in self.runs)

    def record(self) -> dict[str, Any]:
        """JSON-ready."""
        figures = self.figures and {"job": self.figures.job, "slurm_state": self.figures.state}
        return {
            "study": self.study,
            "counts": {state: self.counts[state] for state in ORDER if self.counts[state]},
            "runs": [run.record() for run in self.runs],
            "figures": figures,
            "problems": self.problems,
        }


def look(studies: Sequence[StudyResults], ask: Ask | None = None) -> list[StudyStatus]:
    """How the studies stand. Slurm is asked once for all of them. ask: instead of Slurm."""
    found = [records.read_arrays(records.folder(study.root, study.study)) for study in studies]
    everything = [array for arrays, _ in found for array in arrays]
    unfinished = {
        str(run.path.relative_to(study.root))
        for study in studies
        for run in study.runs
        if run.state not in FINISHED
    }
    unfinished |= {f"{study.study}/figures" for study in studies}
    answer = ask(everything) if ask else ask_slurm(everything, unfinished)
    result = []
    for study, (arrays, damaged) in zip(studies, found):
        folder = records.folder(study.root, study.study)
        arrays, entries = entries_of(folder, arrays, answer)
        queue = by_run(arrays, entries)
        logs = forgotten(folder, arrays, entries)
        runs = [_status(study, run, queue, logs, bool(answer.problem)) for run in study.runs]
        problems = [*study.problems, *damaged, *_changed_code(folder, arrays, runs)]
        if answer.problem and arrays:
            problems.append(answer.problem)
        result.append(StudyStatus(study.study, runs, queue.get(f"{study.study}/figures"), problems))
    return result


def _status(
    study: StudyResults, run: Run, queue: dict[str, Entry], logs: dict[str, Entry], silent: bool
) -> RunStatus:
    path = str(run.path.relative_to(study.root))
    name = f"{run.env}/{run.label}/seed-{run.seed}"
    entry, past = queue.get(path), logs.get(path)
    restarted = _restarted(run)
    own_log = study.root / study.study / "logs" / ("-".join(run.path.parts[-3:]) + ".log")
    if run.state in FINISHED:
        return RunStatus(
            run, name, run.state, f"untrained: {run.untrained}" if run.untrained else "", restarted
        )
    if run.state in ("damaged", "configuration changed"):  # the problems of the study say why
        return RunStatus(run, name, run.state, "", "", entry)
    if run.state == "running":
        return RunStatus(run, name, run.state, "", restarted, entry, own_log)
    over = (
        run.state == "failed" and entry is not None and entry.job == _slurm_job(run)
    )  # its task goes on to others
    if entry is not None and entry.active and not over:
        waits = entry.reason if entry.waits else f"for its turn: job {entry.job} is {entry}"
        return RunStatus(run, name, QUEUED, waits, restarted, entry, entry.log)
    reason = "" if run.state == "missing" else run.reason
    task = ""
    if entry is not None and not entry.active and entry.state != "COMPLETED":
        task = f"its task ended as {entry}"
    elif entry is None and past is not None:
        if silent:
            task = "submitted, and Slurm does not answer"
        elif run.state != "failed" and past.log.exists():
            task = f"its task is {past}"
    task_log = (entry or past).log if entry or past else None  # type: ignore[union-attr]
    log = own_log if run.state == "failed" and own_log.exists() else task_log
    return RunStatus(
        run, name, run.state, "; ".join(filter(None, [reason, task])), restarted, entry or past, log
    )


def _slurm_job(run: Run) -> str | None:
    """The Slurm job of the run's last attempt, as scontrol takes it."""
    attempts = run.meta.get("attempts") or [{}]
    ids = (attempts[-1].get("provenance") or {}).get("scheduler") or {}
    return f"{ids['array_job_id']}_{ids['array_task_id']}" if ids.get("array_job_id") else ids.get("job_id")


def _restarted(run: Run) -> str:
    attempts = run.meta.get("attempts") or [{}]
    why = attempts[-1].get("restarted") or ""
    return "" if why == NO_CHECKPOINT or run.state in FINISHED else str(why)


def _changed_code(folder: Path, arrays: list[records.Array], runs: list[RunStatus]) -> list[str]:
    """A line if tasks run, or will run, code that has changed since their submission."""
    waiting, running = Counter[str](), Counter[tuple[str, str]]()
    by_job = {a.job: one_line(digest) for a in arrays if (digest := records.submitted_digest(folder, a))}
    if not by_job:
        return []
    now = code_digest()
    for status in runs:
        digest = by_job.get(status.entry.job.partition("_")[0]) if status.entry else None
        if digest is None:
            continue
        if status.state == QUEUED and digest != now:
            waiting[digest] += 1
        elif status.state == "running":
            ran = str(status.run.meta["attempts"][-1]["provenance"].get("code_digest", digest))
            if ran != digest:
                running[digest, one_line(ran)] += 1
    here = "the checkout has changed since: a task runs what the checkout holds when it starts"
    return [
        *(f"{_runs(n)} queued with code {old[:12]}, now {now[:12]}: {here}" for old, n in waiting.items()),
        *(
            f"{_runs(n)} submitted with code {old[:12]}, running {ran[:12]}"
            for (old, ran), n in running.items()
        ),
    ]


def show(status: StudyStatus, console: Console | None = None) -> None:
    """Print how the runs of a study stand: the grid, the runs in progress, and a line per state and reason."""
    console = console or Console()

    def line(text: str) -> None:
        console.print(Text(text), soft_wrap=True)

    counted = ", ".join(f"{status.counts[state]} {state}" for state in ORDER if status.counts[state])
    line(f"{status.study}: {len(status.runs)} runs: {counted}")
    console.print(_grid(status.runs))
    groups: dict[tuple[str, str, str], list[RunStatus]] = {}
    for run in status.runs:
        again = f"; begun again at step 0: {run.restarted}" if run.restarted else ""
        if run.state == "running":
            line(f"{run.name}: running: {_progress(run.run)}{again}")
        elif run.state == QUEUED or run.reason or again:
            job = run.entry.job.partition("_")[0] if run.state == QUEUED and run.entry else ""
            groups.setdefault((run.state, run.reason + again, job), []).append(run)
    for (state, reason, job), runs in groups.items():
        what = runs[0].name if len(runs) == 1 else f"{len(runs)} runs ({runs[0].name}, ...)"
        if state == QUEUED:
            line(f"{what}: {state} ({reason or 'no reason given'}), job {job}")
        else:
            reason += "" if state in FINISHED else runs[0].where
            line(f"{what}: {state}{', ' if reason.startswith('untrained') else ': '}{reason}")
    if status.figures is not None and (status.figures.active or status.figures.state != "COMPLETED"):
        line(f"figures: {status.figures}" + (f", job {status.figures.job}" if status.figures.active else ""))
    for problem in status.problems:
        line(problem)


def _progress(run: Run) -> str:
    p = run.progress
    step, steps = p.get("env_step") or 0, p.get("steps") or 0
    return (
        f"step {step:,.0f} of {steps:,.0f}, {number(p.get('rate'))} steps/s, "
        f"return {number(p.get('last_return'))}, {duration(p.get('eta_s'))} left"
    )


def as_json(statuses: Sequence[StudyStatus]) -> str:
    """All of it, for scripts. docs/cluster.md names the fields."""
    return json.dumps({"format": FORMAT, "studies": [status.record() for status in statuses]}, indent=1)


def exit_code(statuses: Sequence[StudyStatus]) -> int:
    """For scripts: 0 every run is finished, 1 some failed, 2 some are damaged, 3 not finished."""
    states = {run.state for status in statuses for run in status.runs}
    if states & {"damaged", "configuration changed"}:
        return 2
    if "failed" in states:
        return 1
    return 0 if states <= set(FINISHED) else 3


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def _grid(runs: Sequence[RunStatus]) -> Table:
    cells: dict[tuple[str, str], Counter[str]] = {}
    for run in runs:
        cells.setdefault((run.run.env, run.run.label), Counter())[run.state] += 1
    columns = [s for s in ORDER if s in SHOWN or any(states[s] for states in cells.values())]
    table = Table(box=None, padding=(0, 1))
    table.add_column("task", overflow="fold")
    table.add_column("algorithm", overflow="fold")
    for state in columns:
        table.add_column(state, justify="right")
    for (env, label), states in cells.items():
        table.add_row(Text(env), Text(label), *(str(states[s]) if states[s] else "." for s in columns))
    return table
