"""MuJoCo's own batches: what they cannot do is told, and where they are missing the portable way is taken."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import pytest

from workbench.envs.multi_agent_mujoco import native
from workbench.envs.multi_agent_mujoco.native import NativeEngine, native_forces_work

needs_batches = pytest.mark.skipif(not native_forces_work(), reason="no native forces on this machine")
SMALL_MEMORY = native._FALLING_ROD.replace("<worldbody>", '<size memory="1400"/><worldbody>')


def rod(xml: str = native._FALLING_ROD) -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(xml)


@needs_batches
def test_what_a_batch_cannot_do_is_told() -> None:
    with pytest.raises(RuntimeError, match="MuJoCo cannot simulate 0 copies: nsim must be positive"):
        NativeEngine(rod(), 0, 1, 1)
    with pytest.raises(RuntimeError, match="MuJoCo's batches do not give out the field 'efc_J'"):
        NativeEngine(rod(), 2, 1, 1, ["efc_J"])


@needs_batches
def test_a_simulation_that_fails_is_named_with_mujocos_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warnings there
    engine = NativeEngine(rod(SMALL_MEMORY), 2, 1, frame_skip=100)
    engine.qpos[0, 2] = 9.0  # only the other one falls to the ground, and its memory holds no contacts
    with pytest.raises(RuntimeError, match=r"MuJoCo failed in environment 1: .*out of memory"):
        engine.physics_only_step(np.zeros((2, 1)))


@needs_batches
def test_the_forces_are_added_by_a_function_of_mujocos_own_signature() -> None:
    """``void (const mjModel*, mjData*, int, void*)``, called as C would, gives what MuJoCo's Python interface gives."""
    model = rod()
    expected, found = mujoco.MjData(model), mujoco.MjData(model)
    for data in (expected, found):
        data.qpos[2] = 0.05
        mujoco.mj_step(model, data)
    mujoco.mj_rnePostConstraint(model, expected)
    callback = native._forces_callback()
    assert str(callback._sig) == "(void*, void*, int32, void*) -> none"
    callback.ctypes(model._address, found._address, 0, None)
    assert expected.cfrc_ext.any()
    assert np.array_equal(expected.cfrc_ext, found.cfrc_ext)


def test_without_mujocos_library_forces_are_computed_the_portable_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "_forces_callback", native._forces_callback.__wrapped__)
    monkeypatch.setattr(mujoco, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setattr(native, "_library", native._library.__wrapped__)
    with pytest.raises(OSError, match=r"^no MuJoCo library in .*" + tmp_path.name):
        native._library()
    assert not native_forces_work.__wrapped__()
