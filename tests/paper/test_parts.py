"""Parts: run once, kept whole, run again where they were cut off or failed; what is wrong is told in a line."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.paper.experiments import parts
from tests.paper.stub_parts import part


def ran(root: Path) -> int:
    return len((root / "made-up/ran").read_text())


def test_a_part_is_run_once_and_kept(tmp_path):
    said: list[str] = []
    wanted = [part("a"), part("b", value=0.1 + 0.2)]
    parts.carry_out(tmp_path, wanted[0])
    parts.run(tmp_path, wanted, 2, said.append)
    assert ran(tmp_path) == 2
    assert said[0] == "experiments: 2 parts, 1 done, 1 to do, 2 at once"
    assert said[1].startswith("experiments: 2 of 2: made-up/b took ")
    record = json.loads((tmp_path / "made-up/parts/b.json").read_text())
    assert record["settings"] == {"value": 0.1 + 0.2}
    assert record["provenance"]["versions"]["torch"]
    assert (tmp_path / "made-up/empty/b.csv").read_text() == "\n"
    rows = parts.all_scores(tmp_path / "made-up", wanted)
    assert [row["value"] for row in rows] == ["1", "0.3"]  # nine digits
    parts.run(tmp_path, wanted, 2, said.append)
    assert ran(tmp_path) == 2


@pytest.mark.slow
def test_a_part_without_its_record_is_run_again(tmp_path):
    parts.carry_out(tmp_path, part("a"))
    part("a").record(tmp_path).unlink()  # what a kill leaves: tables, no record
    assert not parts.is_done(tmp_path, part("a"))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"hash": "'])
def test_a_damaged_record_is_named(text, tmp_path):
    parts.carry_out(tmp_path, part("a"))
    part("a").record(tmp_path).write_text(text)
    with pytest.raises(UserError, match=r"parts/a\.json.*delete it to run that part again") as error:
        parts.run(tmp_path, [part("a")], 1, print)
    assert "\n" not in str(error.value)


def test_a_record_of_other_settings_is_not_taken(tmp_path):
    parts.carry_out(tmp_path, part("a", value=1.0))
    with pytest.raises(UserError, match=r"parts/a\.json: run with other settings: value.*1.*2.*Delete"):
        parts.is_done(tmp_path, part("a", value=2.0))
    record = part("a").record(tmp_path)
    record.write_text(record.read_text().replace('"value": 1.0', '"other": []'))
    with pytest.raises(UserError, match=r"other is \[\] there and absent here; value is absent there"):
        parts.is_done(tmp_path, part("a", value=1.0))
    record.write_text(record.read_text().replace('"function"', '"functions"'))
    with pytest.raises(UserError, match=r"a\.json: 'function' is missing; delete it to run that part again"):
        parts.is_done(tmp_path, part("a", value=1.0))


def test_where_the_function_lies_is_not_part_of_its_identity(tmp_path):
    """Modules may be moved, and older records hold a hash over the module's name; neither makes a part run again."""
    made = part("a", value=1.0)
    parts.carry_out(tmp_path, made)
    record = json.loads(made.record(tmp_path).read_text())
    moved = {**record, "function": "bench.elsewhere:measure", "hash": "ff70381b"}
    made.record(tmp_path).write_text(json.dumps(moved))
    assert parts.is_done(tmp_path, made)
    assert parts.is_done(tmp_path, replace(made, function="bench.anywhere:measure"))


@pytest.mark.slow
def test_a_part_that_fails_stops_no_other(tmp_path):
    said: list[str] = []
    luck = tmp_path / "luck"
    wanted = [part("bad", "fail", unless=str(luck)), part("good")]
    with pytest.raises(UserError, match="1 parts failed: made-up/bad"):
        parts.run(tmp_path, wanted, 1, said.append)
    assert any(line.endswith("made-up/bad failed: ValueError: no such luck") for line in said)
    assert [parts.is_done(tmp_path, each) for each in wanted] == [False, True]
    luck.touch()
    parts.run(tmp_path, wanted, 1, said.append)
    assert ran(tmp_path) == 2  # the good one not again


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "made-up").write_text("a file")
    with pytest.raises(UserError, match="cannot be written"):
        parts.write_rows(tmp_path / "made-up/scores/a.csv", [])


@pytest.mark.slow
def test_cut_off_while_it_says_something(tmp_path):
    """The interrupt need not come while it waits: what it raises must not keep the processes alive."""
    wanted = [part("a"), *(part(f"long-{k}", "sleep", pid=str(tmp_path / f"pid-{k}")) for k in range(2))]

    def say(line: str) -> None:
        if " 1 of 3:" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as held:
        parts.run(tmp_path, wanted, 2, say)
    wait_for(lambda: not multiprocessing.active_children())
    assert held.value.__traceback__ is not None  # the frames that it keeps were there all the time


CUT_OFF = """
import sys
from pathlib import Path
from bench.paper.experiments import parts
from tests.paper.stub_parts import part
if __name__ == "__main__":
    root = Path(sys.argv[1])
    wanted = [part("a"), *(part(f"long-{k}", "sleep", pid=str(root / f"pid-{k}")) for k in range(3))]
    parts.run(root, wanted, 2)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_cut_off_at_any_time(how, tmp_path):
    """What had ended is kept, no process is left behind, and no traceback of a worker is shown."""
    script = tmp_path / "cut_off.py"
    script.write_text(CUT_OFF)
    process = subprocess.Popen(
        [sys.executable, script, tmp_path],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    pids = [tmp_path / "pid-0", tmp_path / "pid-1"]
    wait_for(lambda: all(pid.exists() and pid.read_text() for pid in pids))
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does
    else:
        process.send_signal(how)
    out, err = process.communicate(timeout=60)
    assert process.returncode == -how, err
    if how == signal.SIGINT:
        assert out.splitlines()[-1] == "stopped: 3 parts are left; the same command goes on with them"
        assert "Process SpawnProcess" not in err
    for pid in pids:
        wait_for(lambda pid=pid: not Path(f"/proc/{pid.read_text()}").exists())
    assert parts.is_done(tmp_path, part("a"))
    assert not parts.is_done(tmp_path, part("long-0", "sleep", pid=str(pids[0])))


def wait_for(what, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)
