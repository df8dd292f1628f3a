"""AVX-512 for MKL on processors by AMD: where it is used, and that products are right with it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.machine import mkl
from bench.machine.provenance import ROOT

FLAGS = " ".join(sorted(mkl.NEEDED))

IN_A_PROCESS_OF_ITS_OWN = """
import sys, ctypes
from pathlib import Path
from bench.machine import mkl
assert not mkl.in_use()  # importing bench loads nothing
mkl.use_avx512(*map(Path, sys.argv[1:]))
assert mkl.in_use()
assert ctypes.CDLL(None).mkl_serv_intel_cpu_true() == 1
import torch
x, y = torch.randn(2, 256, 250), torch.randn(2, 250, 256)
error = torch.bmm(x, y).double() - torch.bmm(x.double(), y.double())
assert error.abs().max() < 1e-4, error.abs().max()
"""


def cpuinfo(folder: Path, vendor: str = "AuthenticAMD", flags: str = FLAGS) -> Path:
    """A kernel's description of two cores."""
    file = folder / "cpuinfo"
    file.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: fpu {flags}\n\nprocessor\t: 1\n\n")
    return file


@pytest.mark.parametrize(
    ("vendor", "flags", "held_back"),
    [
        ("AuthenticAMD", FLAGS, True),
        ("AuthenticAMD", FLAGS.replace("avx512vl", ""), False),
        ("AuthenticAMD", "avx2 fma", False),
        ("GenuineIntel", FLAGS, False),
    ],
)
def test_which_processors_are_held_back(tmp_path: Path, vendor: str, flags: str, held_back: bool) -> None:
    assert mkl._is_held_back(cpuinfo(tmp_path, vendor, flags)) is held_back
    assert mkl._is_held_back(tmp_path / "none") is False


def test_without_the_library_turned_off_and_after_torch_nothing_is_done(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(mkl, "_loaded", False)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    mkl.use_avx512(tmp_path / "none.so", cpuinfo(tmp_path))
    monkeypatch.setenv(mkl.OFF, "0")
    mkl.use_avx512(Path("libc.so.6"), cpuinfo(tmp_path))
    monkeypatch.delenv(mkl.OFF)
    monkeypatch.setitem(sys.modules, "torch", sys)
    mkl.use_avx512(Path("libc.so.6"), cpuinfo(tmp_path))
    assert not mkl.in_use()


@pytest.mark.seconds
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")
def test_products_with_it_are_right(tmp_path: Path) -> None:
    library = tmp_path / "mkl_avx512.so"
    source = ROOT / "bench/machine/mkl_avx512.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-nostdlib", "-o", library, source], check=True)
    # MKL asks the processor itself for its instruction sets, so this is safe on any
    command = [sys.executable, "-c", IN_A_PROCESS_OF_ITS_OWN, library, cpuinfo(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT)


def helps_here() -> bool:
    facts = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    flags = re.findall(r"^flags\s*:(.*)", facts, re.M)
    return "AuthenticAMD" in facts and bool(flags) and "avx512vl" in flags[0] and mkl.LIBRARY.exists()


@pytest.mark.seconds
@pytest.mark.parametrize(
    ("first", "loaded"),
    [
        ("import bench, bench.training.trainer", False),  # a program of a user's own
        ("import bench.__main__, bench.training.trainer", True),
        ("from bench.launch.pack import prepare_process; prepare_process(1)", True),
    ],
)
def test_processes_of_the_suite_use_it_and_provenance_says_so(first: str, loaded: bool) -> None:
    if loaded and not helps_here():
        pytest.skip(
            "not a processor by AMD with AVX-512, or no library (make setup makes it with a C compiler)"
        )
    script = f"{first}; from bench.machine.provenance import hardware; print(hardware()['mkl_avx512'])"
    script += "; print('mkl_avx512.so' in open('/proc/self/maps').read())"
    said = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == [str(loaded)] * 2
