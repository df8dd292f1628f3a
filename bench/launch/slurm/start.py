"""Started by an array's batch script on a node: runs the task with this job's index, from the array's work file.

python -u -m bench.launch.slurm.start results/<study>/slurm/work-<token>.json
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bench.disk import DamagedFile, read_json
from bench.runs.records import Work, check


def main(file: Path) -> int:
    from bench.launch.slurm.task import Task, Watch

    watch = Watch()
    try:
        work = check(read_json(file), file.name, Work)
        if work["kind"] == "figures":
            study, root = work["study"], work["root"]
            return subprocess.run(
                [sys.executable, "-m", "bench", "figures", "--study", study, "--results", root]
            ).returncode
        index = int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))
        task = Task.from_work(work, index, file.with_name(f"{file.stem}-{index}.memory.json"))
    except (OSError, DamagedFile, KeyError, IndexError, TypeError, ValueError) as error:
        print(f"{file} cannot be used: {type(error).__name__}: {error}; nothing was begun", flush=True)
        return 1
    return task(watch)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
