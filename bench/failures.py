"""An error in a user's algorithm or task, as one line that says where it is."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CORE = (str(ROOT / "algos" / "core"), str(ROOT / "bench"))


def reason(error: BaseException) -> str:
    """ "KeyError: 'actor.z' (my_algo.py:125, actor_step)": the error, and the last place outside this suite's core.

    Of an error in compiling only what it says first: the rest is advice on how to debug the compiler.
    """
    text = str(error).strip()
    compiling = type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))
    first = text.splitlines()[0] if compiling and text else text
    words = " ".join(f"{type(error).__name__}: {first}".split()).removesuffix(":")
    frames = [
        (frame.filename, frame.lineno, frame.name) for frame in traceback.extract_tb(error.__traceback__)
    ]
    if compiling:  # the traceback is the compiler's; the message lists the frames that it was following
        frames = re.findall(r'File "([^"]+)", line (\d+), in (\S+)', text)
    places = [f"{Path(file).name}:{line}, {name}" for file, line, name in frames if _own(file)]
    return f"{words} ({places[-1]})" if places else words


def _own(file: str) -> bool:
    """Whether a file is neither the core of this suite nor the library below it."""
    if file.startswith("<"):
        return False
    path = str(Path(file).resolve())
    return not path.startswith(CORE) and "/torch/" not in path and "/importlib/" not in path
