"""The batch through MuJoCo's C interface, which can also compute the forces of contacts.

Gymnasium calls ``mj_rnePostConstraint(model, data)`` after each step. ``mjb_apply`` calls a C function on every
simulation, an ``mjfBatchFunc``, compiled here. ``native_forces_work()``: this engine is used only after it has agreed
with MuJoCo's Python interface bit for bit.
"""

from __future__ import annotations

import ctypes
import functools
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from workbench.envs.multi_agent_mujoco.physics import CONTACT_FORCES, BatchEngine, Floats, RowEngine, ThreadedEngine

_DOUBLES = ctypes.POINTER(ctypes.c_double)
_POINTER, _INT = ctypes.c_void_p, ctypes.c_int


class _Config(ctypes.Structure):
    """``mjBatchConfig``."""

    _fields_ = (("n_threads", ctypes.c_int), ("persistent", ctypes.c_bool))


_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "mj_rnePostConstraint": (None, (_POINTER, _POINTER)),
    "mjb_makeBatch": (_POINTER, (_POINTER, _INT, ctypes.POINTER(_Config), ctypes.c_char_p, _INT)),
    "mjb_deleteBatch": (None, (_POINTER,)),
    "mjb_nstate": (_INT, (_POINTER,)),
    "mjb_state": (_DOUBLES, (_POINTER,)),
    "mjb_output": (_DOUBLES, (_POINTER, ctypes.c_char_p, _POINTER, _POINTER)),
    "mjb_step": (_INT, (_POINTER, _POINTER, _INT, _INT, _INT)),
    "mjb_forward": (_INT, (_POINTER, _POINTER, _INT, _INT)),
    "mjb_apply": (_INT, (_POINTER, _POINTER, _INT, _POINTER, _POINTER, _INT)),
    "mjb_status": (ctypes.POINTER(_INT), (_POINTER,)),
    "mjb_error": (ctypes.c_char_p, (_POINTER, _INT)),
}


@functools.cache
def _library() -> ctypes.CDLL:
    """The libmujoco that the Python package has loaded.

    Raises ``OSError`` where there is none, ``AttributeError`` where it has no batches.
    """
    folder = Path(mujoco.__file__).parent
    files = [path for pattern in ("libmujoco*.so*", "libmujoco*.dylib", "mujoco.dll") for path in folder.glob(pattern)]
    if not files:
        raise OSError(f"no MuJoCo library in {folder}")
    library = ctypes.CDLL(str(files[0]))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


@functools.cache
def _forces_callback() -> Any:
    """``void (const mjModel*, mjData*, int sim, void* arg)``, an ``mjfBatchFunc`` that adds the forces of contacts."""
    import numba  # half a second that robots without contact forces do not owe

    add_forces = _library().mj_rnePostConstraint  # numba calls it at its address
    pointer = numba.types.voidptr

    @numba.cfunc(numba.types.void(pointer, pointer, numba.types.intc, pointer))
    def callback(model: object, data: object, sim: object, arg: object) -> None:
        add_forces(model, data)

    return callback


class _Handle:
    """Owns an ``mjBatch``: it is deleted when neither the engine nor any array over its memory is left."""

    def __init__(self, library: ctypes.CDLL, batch: int) -> None:
        self._as_parameter_ = batch
        weakref.finalize(self, library.mjb_deleteBatch, batch)

    def array(self, address: Any, shape: tuple[int, ...]) -> Floats:
        """The float64 array of ``shape`` at a C ``address`` within the batch."""
        memory = (ctypes.c_double * int(np.prod(shape))).from_address(ctypes.cast(address, _POINTER).value or 0)
        memory.owner = self  # type: ignore[attr-defined] # the array keeps the memory, and the memory its owner
        array: Floats = np.ctypeslib.as_array(memory).reshape(shape)
        return array


class NativeEngine(RowEngine):
    """``mjb_step``, then ``mj_rnePostConstraint`` on every simulation, all on MuJoCo's own threads."""

    def __init__(
        self, model: mujoco.MjModel, n_envs: int, n_threads: int, frame_skip: int, fields: Iterable[str] = ()
    ) -> None:
        super().__init__(model, n_envs, n_threads, frame_skip)
        self._library = library = _library()
        message = ctypes.create_string_buffer(1000)
        # Persistent: the forces are computed from what the step left in each simulation's own MjData.
        config = _Config(self.n_threads, True)
        batch = library.mjb_makeBatch(model._address, n_envs, ctypes.byref(config), message, len(message))
        if not batch:
            raise RuntimeError(f"MuJoCo cannot simulate {n_envs} copies: {message.value.decode()}")
        self._batch = _Handle(library, batch)
        self._add_forces = _POINTER(_forces_callback().address)
        self._adopt(self._batch.array(library.mjb_state(batch), (n_envs, library.mjb_nstate(batch))))
        template = mujoco.MjData(model)
        self.fields = {name: self._bind(name, getattr(template, name).shape) for name in fields}

    def _bind(self, name: str, shape: tuple[int, ...]) -> Floats:
        address = self._library.mjb_output(self._batch, name.encode(), None, None)
        if not address:
            raise RuntimeError(f"MuJoCo's batches do not give out the field {name!r}")
        field = self._batch.array(address, (self.n_envs, *shape))
        field.flags.writeable = False
        return field

    def step(self) -> None:
        self._succeed(self._library.mjb_step(self._batch, None, 0, self.frame_skip, 0))
        self._succeed(self._library.mjb_apply(self._batch, None, 0, self._add_forces, None, 0))
        # Computes nothing more, but hands the fields out, which mjb_apply does not.
        self._succeed(self._library.mjb_forward(self._batch, None, 0, 0))

    def _succeed(self, n_failed: int) -> None:
        if n_failed:
            status = np.ctypeslib.as_array(self._library.mjb_status(self._batch), (self.n_envs,))
            env = int(np.flatnonzero(status)[0])
            raise RuntimeError(
                f"MuJoCo failed in environment {env}: {self._library.mjb_error(self._batch, env).decode()}"
            )


_FALLING_ROD = """
<mujoco>
  <option timestep="0.01" integrator="RK4"/>
  <worldbody>
    <geom type="plane" size="5 5 1"/>
    <body pos="0 0 0.3">
      <freejoint/>
      <geom type="capsule" fromto="0 0 0 0.3 0 0" size="0.1"/>
      <body pos="0.3 0 0">
        <joint name="knee" axis="0 1 0"/>
        <geom type="capsule" fromto="0 0 0 0.3 0 0" size="0.1"/>
      </body>
    </body>
  </worldbody>
  <actuator><motor joint="knee" gear="5"/></actuator>
</mujoco>
"""


@functools.cache
def native_forces_work() -> bool:
    """Whether ``NativeEngine`` may be used here: it gives the same bits as ``ThreadedEngine``."""
    try:
        _forces_callback()
    except (OSError, AttributeError, ImportError):
        return False
    return _agree(mujoco.MjModel.from_xml_string(_FALLING_ROD))


def _agree(model: mujoco.MjModel) -> bool:
    """Let three simulations fall to the ground in both engines and compare states and forces, step by step."""
    generator = np.random.default_rng(0)
    engines = [kind(model, 3, 2, 4, [CONTACT_FORCES]) for kind in (NativeEngine, ThreadedEngine)]
    start = BatchEngine(model, 3, 1, 4)
    start.begin(np.arange(3), start.motion + generator.uniform(-0.1, 0.1, start.motion.shape))
    touched = agreed = True
    for engine in engines:
        engine.load(start.save())
    for _ in range(20):
        controls = generator.uniform(-1, 1, (3, model.nu))
        for engine in engines:
            engine.physics_only_step(controls)
        native, threaded = (engine.fields[CONTACT_FORCES] for engine in engines)
        agreed = agreed and np.array_equal(native, threaded) and np.array_equal(engines[0].save(), engines[1].save())
        touched = bool(threaded.any())
    for engine in engines:
        engine.close()
    return agreed and touched
