"""The variables of a command, checked."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from bench.errors import UserError
from bench.studies.file import load_study
from bench.studies.job import Job
from bench.studies.overrides import whole_number
from bench.studies.request import override
from bench.studies.study import Study


def whole(name: str, text: str, least: int) -> int:
    """A whole number from the command line. Raises UserError."""
    try:
        value = whole_number(text)
    except (ValueError, OverflowError):
        value = least - 1
    if value < least:
        raise UserError(f"{name}={text}: expected a whole number from {least} on")
    return value


def flag(name: str, text: str) -> bool:
    """Whether a switch is on. Raises UserError for anything but 1, 0 and nothing."""
    if text not in ("", "0", "1"):
        raise UserError(f"{name}={text}: expected 1, or nothing")
    return text == "1"


def one_of(name: str, text: str, options: Sequence[str]) -> str:
    """One of `options` from the command line. Raises UserError."""
    if text not in options:
        raise UserError(f"{name}={text}: expected {', '.join(options)}")
    return text


def requested(options: Namespace) -> tuple[Study, list[Job]]:
    """The study as the command line changes it, and its jobs."""
    study = override(
        load_study(options.study),
        algos=options.algos,
        envs=options.envs,
        seeds=options.seeds,
        steps=options.steps,
        settings=options.set,
    )
    return study, study.jobs()


def execution_of(options: Namespace) -> tuple[str, str]:
    """Device and execution. Raises UserError for one that this machine does not have."""
    device = one_of("DEVICE", options.device, ("cpu", "cuda"))
    execution = one_of("EXECUTION", options.execution, ("auto", "eager", "compile", "graph"))
    if execution == "graph" and device == "cpu":
        raise UserError("EXECUTION=graph needs DEVICE=cuda")
    return device, possible(execution) if device == "cpu" else execution


def possible(execution: str) -> str:
    """The execution on a CPU, or eager where it needs a compiler and there is none."""
    from bench.launch.plan import has_compiler

    if execution == "compile" and not has_compiler():
        print("bench: no C++ compiler on this machine: EXECUTION=eager instead of compile", file=sys.stderr)
        return "eager"
    return execution


def pack_size(options: Namespace, device: str, seeds: int) -> int:
    if options.pack == "auto":
        return seeds if device == "cuda" else 1
    return whole("PACK", options.pack, 1)


def results_folder(options: Namespace) -> Path:
    """The root of all results, to read from."""
    return Path(options.results)


def writable(name: str, text: str) -> Path:
    """The folder that a variable names, which need not exist yet. Raises UserError where it cannot be written."""
    folder = Path(text).absolute()
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        usable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    except OSError as error:
        raise UserError(f"{name}={text}: {error.strerror}") from None
    if not usable:
        what = "is not a folder" if not there.is_dir() else "cannot be written"
        raise UserError(f"{name}={text}: {there} {what}; name a folder of yours")
    return folder.resolve()


def check_device(device: str) -> None:
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise UserError("DEVICE=cuda: torch sees no GPU here; DEVICE=cpu works everywhere")
