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
mkl._loaded = False  # importing bench has done it where it helps here
assert mkl.use_avx512(*map(Path, sys.argv[1:])) is True
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


def test_after_torch_and_without_the_library_nothing_is_done(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(mkl, "_loaded", False)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert mkl.use_avx512(tmp_path / "none.so", cpuinfo(tmp_path)) is False
    monkeypatch.setitem(sys.modules, "torch", sys)
    assert mkl.use_avx512(mkl.LIBRARY, cpuinfo(tmp_path)) is False


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")
def test_products_with_it_are_right(tmp_path: Path) -> None:
    library = tmp_path / "mkl_avx512.so"
    source = ROOT / "bench/machine/mkl_avx512.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-nostdlib", "-o", library, source], check=True)
    # MKL asks the processor itself for its instruction sets, so this is safe on any
    command = [sys.executable, "-c", IN_A_PROCESS_OF_ITS_OWN, library, cpuinfo(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT)


def test_importing_bench_uses_it_before_torch_and_provenance_says_so() -> None:
    facts = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    flags = re.findall(r"^flags\s*:(.*)", facts, re.M)
    if "AuthenticAMD" not in facts or not flags or "avx512vl" not in flags[0] or not mkl.LIBRARY.exists():
        pytest.skip(
            "not a processor by AMD with AVX-512, or no library (make setup makes it where there is a C compiler)"
        )
    script = "from bench.machine.provenance import hardware; import bench.training.trainer"
    script += "; print(hardware()['mkl_avx512'])"
    script += "; print('mkl_avx512.so' in open('/proc/self/maps').read())"
    said = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["True", "True"]
