"""`make status`: the grid of a study, a line per cell, and what needs a look, from disk (and the queue) alone."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.errors import UserError
from bench.launch.local.display import duration, number
from bench.launch.slurm.queue import Ask, queue_state
from bench.runs import FINISHED, STATES, Run, StudyResults

SHOWN = ("done", "running", "missing")  # these always; other states where there are any


def show(results: StudyResults, console: Console | None = None, ask: Ask | None = None) -> None:
    """Print how the runs of a study stand. `ask`: see `bench.launch.slurm.queue.queue_state`."""
    console = console or Console()
    root, study = results.root, results.study
    problems = list(results.problems)
    try:
        queue = queue_state(root, study, ask)
    except UserError as error:  # the runs themselves can be told all the same
        queue = {}
        problems.append(str(error))
    count = Counter(run.state for run in results.runs)
    told = ", ".join(f"{count[state]} {state}" for state in STATES if count[state])
    console.print(Text(f"{study}: {len(results.runs)} runs: {told}"), soft_wrap=True)
    console.print(_grid(results.runs))
    for run in results.runs:
        name = f"{run.env}/{run.label}/seed-{run.seed}"
        queued = queue.get(str(run.path.relative_to(root)))
        if run.state == "running":
            p = run.progress
            step, steps = p.get("env_step") or 0, p.get("steps") or 0
            line = f"step {step:,.0f} of {steps:,.0f}, {number(p.get('rate'))} steps/s"
            line += f", return {number(p.get('last_return'))}, {duration(p.get('eta_s'))} left"
            console.print(Text(f"{name}: running: {line}"), soft_wrap=True)
        elif run.state in FINISHED and run.untrained:
            console.print(Text(f"{name}: {run.state}, untrained: {run.untrained}"), soft_wrap=True)
        elif queued is not None and run.state not in ("done", "diverged"):
            console.print(Text(f"{name}: {run.state}: {queued}"), soft_wrap=True)
        elif run.state not in ("done", "missing", "damaged", "configuration changed"):  # the last two: below
            console.print(Text(f"{name}: {run.state}: {run.reason}"), soft_wrap=True)
    for problem in problems:
        console.print(Text(problem), soft_wrap=True)


def _grid(runs: list[Run]) -> Table:
    cells: dict[tuple[str, str], Counter[str]] = {}
    for run in runs:
        cells.setdefault((run.env, run.label), Counter())[run.state] += 1
    columns = [s for s in STATES if s in SHOWN or any(states[s] for states in cells.values())]
    table = Table(box=None, padding=(0, 1))
    table.add_column("task", overflow="fold")
    table.add_column("algorithm", overflow="fold")
    for state in columns:
        table.add_column(state, justify="right")
    for (env, label), states in cells.items():
        table.add_row(Text(env), Text(label), *(str(states[s]) if states[s] else "." for s in columns))
    return table
