"""One episode of a trained policy as video.mp4 and video.gif in its run directory. The report shows the GIF."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import gymnasium
import imageio_ffmpeg
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from algos.core.agent import Agent
from algos.core.noise import stream_seed
from bench.disk import write_atomic
from bench.envs import tasks as envs
from bench.errors import UserError
from bench.runs import Run
from bench.text import strerror
from bench.trained_policy import finished, load_policy

Frame = NDArray[np.uint8]

MP4, GIF = "video.mp4", "video.gif"
FPS = 25  # at most; frames in between are not drawn
GIF_EVERY = 2  # frames of the MP4
GIF_WIDTH = 320  # pixels
LONGEST = 2000  # steps of an episode


def render(path: Path) -> list[Path]:
    """Play one episode of the run's final policy and write the videos to its directory.

    The policy acts in the mode in which the run was evaluated; start state and noise follow from the run's seed.

    Returns:
        The files written.

    Raises:
        UserError: no finished run with a policy is there, its task cannot be made or drawn here (no GL library), or the
            folder cannot be written.
    """
    run = finished(path)
    agent, mode = load_policy(run)
    frames, fps = episode(run, agent, mode)
    written = []
    for name, data in ((MP4, mp4(frames, fps)), (GIF, gif(frames[::GIF_EVERY], fps / GIF_EVERY))):
        try:
            write_atomic(path / name, data, "policy")
        except OSError as error:
            raise UserError(f"{path / name} cannot be written: {strerror(error)}") from None
        written.append(path / name)
    return written


def episode(run: Run, agent: Agent, mode: str) -> tuple[list[Frame], float]:
    """The frames of one episode, and how many of them make a second."""
    repeat: int = run.meta["settings"]["action_repeat"]
    env: gymnasium.Env[Any, Any] = envs.make(run.env, action_repeat=repeat, render_mode="rgb_array")
    frames: list[Frame] = []
    try:
        native = float(env.unwrapped.metadata.get("render_fps") or FPS) / repeat
        every = max(1, round(native / FPS))
        obs, _ = env.reset(seed=stream_seed(run.seed, "evaluation environment") % 2**32)
        frames.append(cast(Frame, env.render()))
        for step in range(1, LONGEST + 1):
            action = agent.act(torch.from_numpy(obs)[None, None], mode=mode)[0, 0].numpy()
            obs, _, terminated, truncated, _ = env.step(np.nan_to_num(action))
            if step % every == 0:
                frames.append(cast(Frame, env.render()))
            if terminated or truncated:
                break
    finally:
        env.close()
    return frames, native / every


def mp4(frames: Sequence[Frame], fps: float) -> bytes:
    """H.264, as every browser plays it."""
    height, width = (size - size % 2 for size in frames[0].shape[:2])  # the codec wants even sizes
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MP4
        writer = imageio_ffmpeg.write_frames(path, (width, height), fps=fps, macro_block_size=2)
        writer.send(None)
        for frame in frames:
            writer.send(np.ascontiguousarray(frame[:height, :width]))
        writer.close()
        return path.read_bytes()


def gif(frames: Sequence[Frame], fps: float) -> bytes:
    """Endless, `GIF_WIDTH` wide, all frames in the colours of the middle one."""
    height = round(frames[0].shape[0] * GIF_WIDTH / frames[0].shape[1])
    small = [Image.fromarray(frame).resize((GIF_WIDTH, height), Image.Resampling.BOX) for frame in frames]
    palette = small[len(small) // 2].quantize(128)
    pictures = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in small]
    out = io.BytesIO()
    pictures[0].save(
        out,
        "GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=round(1000 / fps),
        loop=0,
        optimize=True,
    )
    return out.getvalue()
