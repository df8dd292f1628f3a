"""How the names in golden files are ours: one module per algorithm, found by the name of the file.

`qsm_flowrl.npz` is read by qsm_flowrl.py if there is one, else by qsm.py: what follows an underscore is a variant.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import torch

from bench.check.golden import Golden

HERE = Path(__file__).parent


def reader(path: Path, dtype: torch.dtype, device: str = "cpu") -> Golden:
    """The reader of a golden file. Raises ValueError: no module here reads files of that name."""
    return reader_class(path)(path, dtype, device)


def reader_class(path: Path) -> type[Golden]:
    stem = path.stem
    while not (HERE / f"{stem}.py").is_file():
        stem, cut, _ = stem.rpartition("_")
        if not cut:
            raise ValueError(f"{path}: nothing in tests/golden_maps reads this name")
    module = importlib.import_module(f"{__name__}.{stem}")
    found: type[Golden] = module.Reader
    return found
