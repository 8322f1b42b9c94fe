"""A robot as a scene: its geoms, each in the hands of the agents that turn the joints of its body."""

from __future__ import annotations

from collections.abc import Mapping

import mujoco
import numpy as np
import numpy.typing as npt

from workbench.envs.multi_agent_mujoco.partitions import OwnedActuator
from workbench.envs.multi_agent_mujoco.shapes import shape_of
from workbench.envs.scene import Array, Color, Floor, Scene, Shape, Solid

Partition = Mapping[str, tuple[OwnedActuator, ...]]

SHOWN_GROUPS = 3  # MuJoCo's viewers show the geoms of groups 0, 1 and 2


class MujocoScene(Scene):
    """The visible geoms of a model, as MuJoCo's own viewers show them.

    A geom belongs to the agents of all joints of its body, or of the body that its own is fastened to. ``geoms`` are
    the geoms' numbers in the model, in the order of ``solids``.
    """

    def __init__(self, model: mujoco.MjModel, partition: Partition, seconds_per_step: float) -> None:
        self.model = model
        self.seconds_per_step = seconds_per_step
        self.components = {agent: tuple(part.joint for part in parts) for agent, parts in partition.items()}
        self._data = mujoco.MjData(model)
        mujoco.mj_kinematics(model, self._data)
        shown = [geom for geom in range(model.ngeom) if _is_shown(model, geom)]
        moving = model.body_weldid[model.geom_bodyid] != 0
        planes = [geom for geom in shown if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_PLANE]
        self.geoms = tuple(geom for geom in shown if geom not in planes)
        self.floors = tuple(self._floor(geom) for geom in planes if not moving[geom])
        owners = owners_of_bodies(model, partition)
        shapes: dict[tuple[float, ...], int] = {}
        made: list[Shape] = []
        solids = []
        for geom in self.geoms:
            key = (model.geom_type[geom], model.geom_dataid[geom], *model.geom_size[geom])
            if key not in shapes:
                shapes[key] = len(made)
                made.append(shape_of(model, geom))
            owned = owners.get(int(model.body_weldid[model.geom_bodyid[geom]]), ())
            name = model.geom(geom).name or model.body(model.geom_bodyid[geom]).name
            solids.append(Solid(name, shapes[key], owned, geom_color(model, geom), bool(moving[geom])))
        self.solids, self.shapes = tuple(solids), tuple(made)
        self.resting = self.poses(self._data.qpos[None].copy())[0]
        self.radius = self._radius()

    def _floor(self, geom: int) -> Floor:
        x, y, z = self._data.geom_xpos[geom].tolist()
        quaternion = np.empty(4)
        mujoco.mju_mat2Quat(quaternion, self._data.geom_xmat[geom])
        a, b, c, d = quaternion.tolist()
        width, depth, _ = self.model.geom_size[geom].tolist()
        return Floor((x, y, z), (a, b, c, d), (width, depth))

    def _radius(self) -> float:
        those = [k for k, solid in enumerate(self.solids) if solid.moves] or list(range(len(self.solids)))
        places = self.resting[those, :3]
        reach = self.model.geom_rbound[[self.geoms[k] for k in those]]
        return float((np.linalg.norm(places - places.mean(0), axis=1) + reach).max(initial=1e-3))

    def poses(self, sights: npt.NDArray[np.float64]) -> Array:
        model, data, geoms = self.model, self._data, list(self.geoms)
        places = np.empty((len(sights), len(geoms), 3))
        turns = np.empty((len(sights), model.nbody, 4))
        for i, sight in enumerate(sights):
            data.qpos[:] = sight
            mujoco.mj_kinematics(model, data)
            places[i] = data.geom_xpos[geoms]
            turns[i] = data.xquat
        rotations = _product(turns[:, model.geom_bodyid[geoms]], model.geom_quat[geoms])
        return np.concatenate([places, _without_jumps(rotations)], 2).astype(np.float32)


def owners_of_bodies(model: mujoco.MjModel, partition: Partition) -> dict[int, tuple[str, ...]]:
    """{number of a body: the agents that turn its joints, in the partition's order}."""
    owners: dict[int, dict[str, None]] = {}
    for agent, parts in partition.items():
        for part in parts:
            if part.body >= 0:
                owners.setdefault(part.body, {})[agent] = None
    return {body: tuple(agents) for body, agents in owners.items()}


def geom_color(model: mujoco.MjModel, geom: int) -> Color:
    """(red, green, blue, opacity) of a geom, from its material where it has one."""
    material = model.geom_matid[geom]
    rgba = model.geom_rgba[geom]
    # A colour given to the geom itself overrides its material's; 0.5 grey is MuJoCo's word for none given.
    if material >= 0 and np.allclose(rgba, (0.5, 0.5, 0.5, 1)):
        rgba = model.mat_rgba[material]
    red, green, blue, opacity = rgba.tolist()
    return (red, green, blue, opacity)


def _is_shown(model: mujoco.MjModel, geom: int) -> bool:
    return bool(model.geom_group[geom] < SHOWN_GROUPS and geom_color(model, geom)[3] > 0)


def _product(p: npt.NDArray[np.float64], q: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """p·q of quaternions (w, x, y, z) along the last axis."""
    a, u = p[..., :1], p[..., 1:]
    b, v = q[..., :1], q[..., 1:]
    vector: npt.NDArray[np.float64] = a * v + b * u + np.cross(u, np.broadcast_to(v, u.shape))
    return np.concatenate([a * b - (u * v).sum(-1, keepdims=True), vector], -1)


def _without_jumps(rotations: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """q and −q are one rotation: of the two, that nearer to the frame before, so that one can draw between frames."""
    turned = (rotations[1:] * rotations[:-1]).sum(-1, keepdims=True) < 0
    signs = np.cumprod(np.where(turned, -1.0, 1.0), 0)
    result: npt.NDArray[np.float64] = np.concatenate([rotations[:1], rotations[1:] * signs])
    return result
