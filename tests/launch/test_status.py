"""What `make status` says of runs beside their state."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from bench.launch import status
from bench.runs import read_study
from tests.analysis import helpers


def test_a_finished_run_that_never_learned_is_named(tmp_path: Path) -> None:
    folder = helpers.study(tmp_path, algos=["sac", "random"], seeds=2)
    for algo in ("sac", "random"):
        settings = {"steps": 500, "random_steps": 500, "action_repeat": 1}
        helpers.change_meta(folder / f"cheetah-run/{algo}/seed-0", settings=settings)
    console = Console(file=io.StringIO(), width=200)
    (found,) = status.look([read_study(tmp_path, "made-up", verify=False)])
    status.show(found, console)
    lines = [line for line in console.file.getvalue().splitlines() if "untrained" in line]  # type: ignore[attr-defined]
    reason = "steps = 500 with random_steps = 500 never updates the policy; 501 steps would"
    assert lines == [f"cheetah-run/sac/seed-0: done, untrained: {reason}"]
