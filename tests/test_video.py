"""A trained policy as MP4 and GIF; what stands in the way is told in one line."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image

from bench import video
from bench.__main__ import main
from bench.analysis.report.sections import _comparisons
from bench.analysis.scores.load import load
from bench.runs import read_run
from tests.analysis import helpers
from tests.launching import REPO


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that came with the suite, to be changed at will."""
    path = tmp_path / "results/quick/cartpole-swingup/sac/seed-0"
    shutil.copytree(REPO / "results/quick/cartpole-swingup/sac/seed-0", path)
    return path


@pytest.fixture
def egl() -> None:
    try:
        from mujoco.egl import GLContext

        GLContext(8, 8).free()
    except Exception as error:
        pytest.skip(f"no EGL here: {error}")


def refused(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that `bench video` ends with."""
    assert main(["video", str(path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("bench: ")
    assert list(path.glob("video*")) == []
    return lines[0]


def without_policy(run: Path) -> None:
    """As the runs of an experiment are."""
    done = json.loads((run / "done.json").read_text())
    del done["files"]["policy.pt"]
    (run / "done.json").write_text(json.dumps(done))
    (run / "policy.pt").unlink()
    helpers.seal(run)


def narrower(run: Path) -> None:
    record = torch.load(run / "policy.pt", weights_only=True)
    record["config"]["hidden"] = [8, 8]
    torch.save(record, run / "policy.pt")
    helpers.seal(run)


def garbage(run: Path) -> None:
    (run / "policy.pt").write_bytes(b"no zip file")
    helpers.seal(run)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (shutil.rmtree, "is not a finished run: expected results/<study>/<env>/<label>/seed-<k>"),
        (lambda run: (run / "done.json").unlink(), "is not a finished run (stale"),
        (lambda run: (run / "eval.csv").write_text("x"), "is not a finished run (damaged: eval.csv"),
        (without_policy, "keeps no policy.pt"),
        (lambda run: (run / "policy.pt").unlink(), "keeps no policy.pt"),
        (narrower, "policy.pt cannot be used"),
        (garbage, "policy.pt holds objects other than tensors"),
        (lambda run: helpers.change_meta(run, env="cheetah-fly"), "is not a finished run (damaged"),
    ],
)
def test_what_cannot_be_shown_is_told_in_one_line(change, line, run, capsys):
    change(run)
    assert line in refused(run, capsys)


@pytest.mark.parametrize("wanted", [None, "disable", "egl"])
def test_without_a_gl_library(wanted, run, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco.egl", None)
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    if wanted:
        monkeypatch.setenv("MUJOCO_GL", wanted)
    assert "cannot draw cartpole-swingup" in (line := refused(run, capsys))
    assert "install libEGL" in line


@pytest.mark.seconds
def test_a_folder_that_cannot_be_written(run, capsys, monkeypatch):
    def full(path, data, kind):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(video, "episode", lambda *_: (pictures(4, 32, 32), 25.0))
    monkeypatch.setattr(video, "write_atomic", full)
    assert "video.mp4 cannot be written: No space left on device" in refused(run, capsys)


def test_the_policy_is_that_of_the_file(run):
    agent, mode = video.load_policy(read_run(run))
    assert mode == agent.evaluation_mode == "greedy"
    saved = torch.load(run / "policy.pt", weights_only=True)["state"]
    assert "actor" in saved
    for part, tensors in saved.items():
        for name, tensor in tensors.items():
            assert torch.equal(agent.state[part][name].squeeze(0), tensor.squeeze(0))


def pictures(n: int, height: int, width: int) -> list[np.ndarray]:
    """A white bar that moves over black."""
    frames = [np.zeros((height, width, 3), np.uint8) for _ in range(n)]
    for k, frame in enumerate(frames):
        frame[:, k : k + 8] = 255
    return frames


def test_an_mp4_of_odd_size(tmp_path):
    (tmp_path / "a.mp4").write_bytes(video.mp4(pictures(20, 49, 63), 20.0))
    frames = imageio_ffmpeg.read_frames(tmp_path / "a.mp4")
    meta = next(frames)
    assert (meta["size"], meta["fps"], meta["codec"]) == ((62, 48), 20, "h264")
    assert len(list(frames)) == 20


def test_a_gif_is_small_and_endless():
    picture = Image.open(io.BytesIO(video.gif(pictures(10, 48, 64), 12.5)))
    assert (picture.n_frames, picture.size) == (10, (320, 240))
    assert picture.info["duration"] == 80  # ms
    assert picture.info["loop"] == 0


@pytest.mark.slow
def test_an_episode_is_drawn(run, egl, capsys, monkeypatch):
    monkeypatch.setattr(video, "LONGEST", 40)
    assert main(["video", str(run)]) == 0
    assert [Path(line).name for line in capsys.readouterr().out.splitlines()] == ["video.mp4", "video.gif"]
    frames = imageio_ffmpeg.read_frames(run / "video.mp4")
    assert next(frames)["fps"] == 25
    assert len(list(frames)) == 11  # the first, then every fourth: the task makes 100 steps a second
    with Image.open(run / "video.gif") as picture:
        assert picture.n_frames == 6
        assert np.asarray(picture.convert("RGB")).std() > 5  # something is in the picture
    assert read_run(run).state == "done"  # and the run is as it was
    first = (run / "video.gif").read_bytes()
    video.render(run)
    assert (run / "video.gif").read_bytes() == first


def test_the_report_shows_the_videos_there_are(tmp_path):
    folder = helpers.study(tmp_path, seeds=2)
    (folder / "cheetah-run/qsm/seed-1/video.gif").write_bytes(b"GIF89a")
    assert _comparisons(load(tmp_path, "made-up")).videos == ["../cheetah-run/qsm/seed-1/video.gif"]
