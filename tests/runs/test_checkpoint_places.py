"""Results folders that share a place for checkpoints: each finds its own, and takes nothing from the others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bench.runs import Writer, checkpoint_places, checkpoint_step, read_run
from tests.runs.writing import JOB, eval_row, open_writer, rows


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


def half_done(root: Path, scratch: Path | None, step: int = 2, wall: float = 1.0) -> Writer:
    """A run with a checkpoint at `step`, whose process lives. wall: seconds, which tell two equal runs apart."""
    run = open_writer(root, checkpoint_root=scratch)
    run.append("eval.csv", [eval_row(step) | {"wall_s": wall}])
    run.heartbeat(env_step=step)
    run.save_checkpoint(step, b"state %d" % step, rows(0, step), 0)
    return run


def resumed(root: Path, scratch: Path | None) -> tuple[int, str | None]:
    """The step at which the next attempt begins, as planned and as it turns out, and why if it is 0."""
    planned = checkpoint_step(root, JOB, scratch)
    run = open_writer(root, checkpoint_root=scratch)
    attempt = read_run(run.path).meta["attempts"][-1]
    assert attempt["resumed_at_step"] == planned
    run.release()
    return planned, run.restarted


def as_older_code(root: Path, scratch: Path) -> None:
    """Put the checkpoint where older code had it."""
    shutil.move(
        checkpoint_places.checkpoint_folder(root, JOB.path, scratch), scratch / JOB.path / "checkpoint"
    )


def test_two_results_folders_keep_apart_on_one_scratch(tmp_path: Path, scratch: Path) -> None:
    one, other = half_done(tmp_path / "one", scratch), half_done(tmp_path / "other", scratch, step=3)
    one.release()
    other.release()
    assert resumed(tmp_path / "one", scratch) == (2, None)
    assert resumed(tmp_path / "other", scratch) == (3, None)
    for root in ("one", "other"):
        open_writer(tmp_path / root, checkpoint_root=scratch).finish("done", 4, policy=b"")
    assert not list(scratch.iterdir())


def test_a_checkpoint_of_older_code_is_found_and_moved(tmp_path: Path, scratch: Path) -> None:
    half_done(tmp_path / "results", scratch).release()
    as_older_code(tmp_path / "results", scratch)
    assert resumed(tmp_path / "results", scratch) == (2, None)
    assert not (scratch / JOB.path / "checkpoint").exists()


def test_one_of_older_code_that_is_another_s_stays(tmp_path: Path, scratch: Path) -> None:
    half_done(tmp_path / "theirs", scratch, wall=1.0).release()
    as_older_code(tmp_path / "theirs", scratch)
    ours = half_done(tmp_path / "ours", None, wall=1.5)
    shutil.rmtree(ours.path / "checkpoint")
    ours.release()
    assert resumed(tmp_path / "ours", scratch) == (0, "no checkpoint; the attempt before had come to step 2")
    assert resumed(tmp_path / "theirs", scratch) == (2, None)


def test_a_moved_results_folder_keeps_its_checkpoints(tmp_path: Path, scratch: Path) -> None:
    half_done(tmp_path / "here", scratch).release()
    (tmp_path / "here").rename(tmp_path / "there")
    assert resumed(tmp_path / "there", scratch) == (2, None)


def test_one_moved_to_another_file_system_too(tmp_path: Path, scratch: Path) -> None:
    half_done(tmp_path / "here", scratch).release()
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    shutil.rmtree(tmp_path / "here")
    assert resumed(tmp_path / "there", scratch) == (2, None)


def test_a_copy_leaves_the_original_s_checkpoints_to_it(tmp_path: Path, scratch: Path) -> None:
    run = half_done(tmp_path / "original", scratch)
    shutil.copytree(tmp_path / "original", tmp_path / "copy")
    (tmp_path / "copy" / JOB.path / "owner.json").unlink()
    step, why = resumed(tmp_path / "copy", scratch)
    assert (step, why) == (0, "no checkpoint; the attempt before had come to step 2")
    run.save_checkpoint(4, b"state 4", rows(2, 4), 2)  # the original was running all the time
    run.release()
    assert resumed(tmp_path / "original", scratch) == (4, None)


def test_a_run_goes_on_when_a_place_for_checkpoints_is_named_later(tmp_path: Path, scratch: Path) -> None:
    half_done(tmp_path / "results", None).release()
    assert resumed(tmp_path / "results", scratch) == (2, None)


def test_a_checkpoint_crosses_file_systems_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "a", tmp_path / "b" / "c"
    source.mkdir()
    (source / "checkpoint.json").write_text("{}")
    rename = checkpoint_places.os.rename

    def across(old: Path, new: Path) -> None:
        if old == source:
            raise OSError(checkpoint_places.errno.EXDEV, "other file system")
        rename(old, new)

    monkeypatch.setattr(checkpoint_places.os, "rename", across)
    checkpoint_places.move(source, target)
    assert ([path.name for path in target.iterdir()], source.exists()) == (["checkpoint.json"], False)
    assert [path.name for path in target.parent.iterdir()] == ["c"]


def test_a_damaged_identity_is_drawn_anew(tmp_path: Path, scratch: Path) -> None:
    half_done(tmp_path / "results", scratch).release()
    (tmp_path / "results" / checkpoint_places.IDENTITY).write_text(
        json.dumps({"format": 1, "id": "../../etc"})
    )
    assert resumed(tmp_path / "results", scratch)[0] == 0
