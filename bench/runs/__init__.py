"""The run directory, results/<study>/<env>/<label>/seed-<k>/: the only code that knows its files.

docs/results.md describes the format. This module re-exports the public names of:
    records.py            the shape of each JSON file
    tables.py             the columns of each CSV, written and read
    ownership.py          the lock, the owner, and whether it lives
    checkpoints.py        the trainer's state and the replay shards
    checkpoint_places.py  the folder of a checkpoint, also under a root that several results folders share
    checks.py             conditions for writing a run
    resume.py             the checkpoint from which it resumes
    writer.py             `Writer`: the one process that may write a run
    cleanup.py            removes the files that only a running process needs
    reader.py             `read_run`: one run, in whatever state
    study_file.py         study.json: `write_study`, `read_study`
None of them imports torch.
"""

from bench.runs.checkpoints import Checkpoint
from bench.runs.checks import AlreadyFinished, check_configuration
from bench.runs.cleanup import remove_leftovers
from bench.runs.ownership import STALE_AFTER_S
from bench.runs.reader import FINISHED, RANDOM, STATES, DamagedRun, Run, read_run, untrained
from bench.runs.records import FORMAT
from bench.runs.resume import check_resumable, checkpoint_step
from bench.runs.study_file import StudyResults, read_study, read_study_file, studies, write_study
from bench.runs.tables import TABLES
from bench.runs.writer import NO_CHECKPOINT, BeingWritten, Superseded, Writer, record_failure

__all__ = [
    "FINISHED",
    "FORMAT",
    "NO_CHECKPOINT",
    "RANDOM",
    "STALE_AFTER_S",
    "STATES",
    "TABLES",
    "AlreadyFinished",
    "BeingWritten",
    "Checkpoint",
    "DamagedRun",
    "Run",
    "StudyResults",
    "Superseded",
    "Writer",
    "check_configuration",
    "check_resumable",
    "checkpoint_step",
    "read_run",
    "read_study",
    "read_study_file",
    "record_failure",
    "remove_leftovers",
    "studies",
    "untrained",
    "write_study",
]
