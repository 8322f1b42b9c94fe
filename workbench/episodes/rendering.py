"""Pictures of a scene by MuJoCo's renderer, in a process of its own.

MuJoCo chooses its graphics system when it is imported, by ``MUJOCO_GL``, and never again; in this process that may be
long past, and on a machine without a display the choice was the wrong one. The other process draws plain data: the
solids of a scene as meshes, wherever their poses put them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from workbench.envs.workers import WorkerError, WorkerPool
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    import mujoco

Pictures = npt.NDArray[np.uint8]
Poses = npt.NDArray[np.float32]

VIEW = (109.0, -23.0)  # degrees: azimuth and elevation, as the player begins
AWAY = 3.4  # radii of the scene
SUN = np.array([0.15, 0.25, -1.0])  # the way that light goes
INKS = {
    "light": {"floor": (0.95, 0.96, 0.97), "tile": (0.88, 0.89, 0.91), "sky": (1.0, 1.0, 1.0)},
    "dark": {"floor": (0.2, 0.22, 0.25), "tile": (0.16, 0.17, 0.2), "sky": (0.07, 0.07, 0.07)},
}


class RenderingError(WorkbenchError):
    """No graphics system that MuJoCo could draw with was found; the message says what was tried, and the remedy."""


@dataclass(frozen=True)
class Part:
    """One coloured surface: vertices (n, 3), triangles (m, 3), colour (red, green, blue, opacity) from 0 to 1."""

    vertices: npt.NDArray[np.float32]
    triangles: npt.NDArray[np.int32]
    color: tuple[float, float, float, float]


@dataclass(frozen=True)
class Picture:
    """What every picture of a film has in common.

    parts           the surfaces
    floor           height of a level floor, or None
    radius          of the scene
    width, height   in pixels
    theme           "light" or "dark"
    """

    parts: tuple[Part, ...]
    floor: float | None
    radius: float
    width: int
    height: int
    theme: str = "light"


def graphics_systems(environment: Mapping[str, str] | None = None, platform: str = sys.platform) -> tuple[str, ...]:
    """What to try, the first first: what ``MUJOCO_GL`` names, or what draws without a display.

    >>> graphics_systems({"MUJOCO_GL": "osmesa"}, "linux"), graphics_systems({}, "linux")
    (('osmesa',), ('egl', 'osmesa'))
    """
    named = (os.environ if environment is None else environment).get("MUJOCO_GL")
    if named:
        return (named,)
    return ("egl", "osmesa") if platform.startswith("linux") else ("",)


def render(picture: Picture, poses: Poses, targets: npt.NDArray[np.float64]) -> Pictures:
    """(n, height, width, 3): the parts at ``poses`` (n, parts, 7), seen by a camera that looks at ``targets`` (n, 3).

    Raises ``RenderingError`` where no graphics system works.
    """
    reasons = []
    for system in graphics_systems():
        try:
            with closing(WorkerPool([Renderer(system)], ["MuJoCo's renderer"])) as pool:
                pictures: Pictures = pool.call("draw", [(picture, poses, targets)])[0]
                return pictures
        except WorkerError as error:
            reasons.append(f"{system or 'the default'}: {str(error).strip().splitlines()[-1]}")
    raise RenderingError(
        f"MuJoCo can draw nothing on this machine ({'; '.join(reasons)}). Without a display it needs EGL or OSMesa: on "
        "Debian install libegl1 and libgl1-mesa-dri, or libosmesa6, or name another system in MUJOCO_GL. to_html() "
        "needs none of them."
    )


class Renderer:
    """In the other process: made by calling it, after the graphics system has been chosen."""

    def __init__(self, system: str) -> None:
        self.system = system

    def __call__(self) -> Renderer:
        if self.system:
            os.environ["MUJOCO_GL"] = self.system
        import mujoco

        mujoco.GLContext(8, 8).free()  # fails here, where another system can still be tried
        return self

    def draw(self, picture: Picture, poses: Poses, targets: npt.NDArray[np.float64]) -> Pictures:
        import mujoco

        model = stage(picture).compile()
        data = mujoco.MjData(model)
        camera = mujoco.MjvCamera()
        camera.azimuth, camera.elevation = VIEW
        camera.distance = AWAY * picture.radius
        pictures = np.empty((len(poses), picture.height, picture.width, 3), np.uint8)
        with mujoco.Renderer(model, picture.height, picture.width) as renderer:
            for i, (pose, target) in enumerate(zip(poses, targets, strict=True)):
                data.mocap_pos[:], data.mocap_quat[:] = pose[:, :3], pose[:, 3:]
                camera.lookat[:] = target
                # Shadows are cast near the light's own line only, so it goes along.
                model.light_pos[0] = target - 4 * picture.radius * SUN
                mujoco.mj_forward(model, data)
                renderer.update_scene(data, camera)
                pictures[i] = renderer.render()
        return pictures

    def close(self) -> None:
        """Nothing to give back: the process ends."""


def stage(picture: Picture) -> mujoco.MjSpec:
    """The ``MjSpec`` of a scene that only stands there: each part a mesh on a body that is put where it belongs."""
    import mujoco

    ink = INKS[picture.theme]
    spec = mujoco.MjSpec()
    spec.stat.extent = picture.radius
    spec.stat.center = (0, 0, 0)
    spec.visual.global_.offwidth, spec.visual.global_.offheight = picture.width, picture.height
    spec.visual.global_.fovy = 40
    spec.visual.map.znear, spec.visual.map.zfar, spec.visual.map.shadowclip = 0.02, 100, 3
    spec.visual.headlight.ambient, spec.visual.headlight.diffuse = (0.45,) * 3, (0.35,) * 3
    spec.visual.headlight.specular = (0.1,) * 3
    spec.visual.quality.shadowsize = 2048
    flat = mujoco.mjtBuiltin.mjBUILTIN_FLAT
    sky = {"type": mujoco.mjtTexture.mjTEXTURE_SKYBOX, "builtin": flat, "width": 8, "height": 8}
    spec.add_texture(name="sky", rgb1=ink["sky"], rgb2=ink["sky"], **sky)
    spec.worldbody.add_light(
        dir=SUN,
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        diffuse=(0.4,) * 3,
        ambient=(0,) * 3,
        specular=(0.1,) * 3,
        castshadow=True,
    )
    if picture.floor is not None:
        checker = {"type": mujoco.mjtTexture.mjTEXTURE_2D, "builtin": mujoco.mjtBuiltin.mjBUILTIN_CHECKER}
        spec.add_texture(name="tiles", rgb1=ink["floor"], rgb2=ink["tile"], width=256, height=256, **checker)
        tile = 1 / max(picture.radius, 1e-3)
        textures = [""] * int(mujoco.mjtTextureRole.mjNTEXROLE)
        textures[int(mujoco.mjtTextureRole.mjTEXROLE_RGB)] = "tiles"
        spec.add_material(name="floor", textures=textures, texuniform=True, texrepeat=(tile, tile), specular=0)
        plane = mujoco.mjtGeom.mjGEOM_PLANE
        spec.worldbody.add_geom(type=plane, size=(0, 0, 1), pos=(0, 0, picture.floor), material="floor")
    for k, part in enumerate(picture.parts):
        spec.add_mesh(
            name=f"mesh {k}",
            uservert=part.vertices.ravel(),
            userface=part.triangles.ravel(),
            inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,  # a band of a surface encloses nothing
        )
        body = spec.worldbody.add_body(name=f"part {k}", mocap=True)
        kind = mujoco.mjtGeom.mjGEOM_MESH
        body.add_geom(type=kind, meshname=f"mesh {k}", rgba=part.color, contype=0, conaffinity=0)
    return spec
