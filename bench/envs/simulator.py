"""MuJoCo in this process: no GL library before the first image, and warnings that go to a logger."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


def redirect_warnings() -> None:
    """Send MuJoCo's warnings to a logger; its own handler writes MUJOCO_LOG.TXT into the current folder."""
    with mujoco_gl("disable"):
        import mujoco
    mujoco.set_mju_user_warning(_log_warning)


def _log_warning(message: str) -> None:
    if "is deprecated" not in message:  # about attributes of models that are not ours
        logging.getLogger("mujoco").warning(message)


def gl_library() -> str:
    wanted = os.environ.get("MUJOCO_GL", "").lower()
    return wanted if wanted in ("osmesa", "glfw") else "egl"


@contextmanager
def mujoco_gl(library: str) -> Iterator[None]:
    """Set MUJOCO_GL during an import or while an image is drawn.

    A user's own value (clusters set it for everybody) must not make training load a GL library that is
    not there.
    """
    before = os.environ.get("MUJOCO_GL")
    os.environ["MUJOCO_GL"] = library
    try:
        yield
    finally:
        if before is None:
            del os.environ["MUJOCO_GL"]
        else:
            os.environ["MUJOCO_GL"] = before


class Renderer:
    """Offscreen images of one MuJoCo model.

    `mujoco.Renderer` and dm_control's own choose their GL library when they are first imported; by then it
    was switched off, so that training needs none. This one loads it when the first image is drawn.
    """

    def __init__(self, model: Any, height: int = 480, width: int = 640):
        import mujoco

        self._mujoco, self._model = mujoco, model
        self._context = importlib.import_module(f"mujoco.{os.environ['MUJOCO_GL']}").GLContext(width, height)
        self._context.make_current()
        self._scene = mujoco.MjvScene(model, maxgeom=10_000)
        self._option, self._camera = mujoco.MjvOption(), mujoco.MjvCamera()
        if model.ncam:  # the suite's first camera follows the body
            self._camera.type, self._camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, 0
        else:
            mujoco.mjv_defaultFreeCamera(model, self._camera)
        self._target = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._target)
        self._rectangle = mujoco.MjrRect(0, 0, width, height)
        self._pixels = np.empty((height, width, 3), np.uint8)

    def draw(self, data: Any) -> np.ndarray:
        mujoco = self._mujoco
        self._context.make_current()
        for k in range(self._model.nhfield):  # a reset may have made new terrain
            mujoco.mjr_uploadHField(self._model, self._target, k)
        mujoco.mjv_updateScene(
            self._model, data, self._option, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL.value, self._scene
        )
        mujoco.mjr_render(self._rectangle, self._scene, self._target)
        mujoco.mjr_readPixels(self._pixels, None, self._rectangle, self._target)
        return np.flipud(self._pixels).copy()  # OpenGL's first row is the lowest

    def close(self) -> None:
        self._context.make_current()
        self._target.free()
        self._context.free()
