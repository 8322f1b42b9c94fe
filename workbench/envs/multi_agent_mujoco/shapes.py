"""MuJoCo's geoms as surfaces of triangles."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
import numpy.typing as npt

from workbench.envs.scene import Shape

Floats = npt.NDArray[np.float64]
Points = list[tuple[float, float]]

SIDES = 18  # of what is round
RINGS = 12  # along a cylinder, so that bands of two, three, four or six have straight edges
ARC = 5  # steps from an equator to its pole

_MESHES = (int(mujoco.mjtGeom.mjGEOM_MESH), int(mujoco.mjtGeom.mjGEOM_SDF))


def shape_of(model: mujoco.MjModel, geom: int) -> Shape:
    """The surface of a geom in its own frame. Raises ``ValueError`` for a plane, which has none."""
    kind, size = model.geom_type[geom], model.geom_size[geom]
    if kind == mujoco.mjtGeom.mjGEOM_SPHERE:
        return _ellipsoid(np.full(3, size[0]))
    if kind == mujoco.mjtGeom.mjGEOM_ELLIPSOID:
        return _ellipsoid(size)
    if kind == mujoco.mjtGeom.mjGEOM_CAPSULE:
        return _revolved([_capsule_outline(size[0], size[1])])
    if kind == mujoco.mjtGeom.mjGEOM_CYLINDER:
        radius, half = size[0], size[1]
        return _revolved([[(0, -half), (radius, -half)], _straight(radius, half), [(radius, half), (0, half)]])
    if kind == mujoco.mjtGeom.mjGEOM_BOX:
        return _box(size)
    if int(kind) in _MESHES:
        return _mesh(model, int(model.geom_dataid[geom]))
    if kind == mujoco.mjtGeom.mjGEOM_HFIELD:
        return _height_field(model, int(model.geom_dataid[geom]))
    raise ValueError(f"geom {geom} is of type {kind}, which has no surface to draw.")


def _straight(radius: float, half: float) -> Points:
    return [(radius, z) for z in np.linspace(-half, half, RINGS + 1)]


def _arc(radius: float, first: float, last: float, z: float) -> Points:
    angles = np.linspace(first, last, ARC + 1)
    return [(radius * np.cos(angle), z + radius * np.sin(angle)) for angle in angles]


def _capsule_outline(radius: float, half: float) -> Points:
    bottom, top = _arc(radius, -np.pi / 2, 0, -half), _arc(radius, 0, np.pi / 2, half)
    return [*bottom, *_straight(radius, half)[1:-1], *top]


def _ellipsoid(axes: Floats) -> Shape:
    unit = _revolved([[*_arc(1, -np.pi / 2, 0, 0), *_arc(1, 0, np.pi / 2, 0)[1:]]])
    normals = unit.normals / axes
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return Shape((unit.vertices * axes).astype(np.float32), normals.astype(np.float32), unit.triangles)


def _revolved(outlines: Sequence[Points]) -> Shape:
    """Outlines (distance from the axis, z), from below upwards, turned about z; edges between outlines stay sharp."""
    parts = [_turned(np.array(outline, np.float64)) for outline in outlines]
    return _joined(parts)


def _turned(outline: Floats) -> Shape:
    angles = np.linspace(0, 2 * np.pi, SIDES + 1)
    around = np.stack([np.cos(angles), np.sin(angles)], 1)
    rho, z = outline.T
    vertices = np.empty((len(outline), SIDES + 1, 3))
    vertices[..., :2] = rho[:, None, None] * around
    vertices[..., 2] = z[:, None]
    # The normal lies across the outline's own direction.
    tangent = np.gradient(outline, axis=0)
    across = np.stack([tangent[:, 1], -tangent[:, 0]], 1)
    at_pole = rho < 1e-12 * max(float(rho.max()), 1.0)
    sharp = np.ptp(z) == 0  # a lid: its rim is no pole, and its middle needs no rounding
    across[at_pole & ~sharp] = np.stack([np.zeros_like(z), np.sign(z)], 1)[at_pole & ~sharp]
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    normals = np.empty_like(vertices)
    normals[..., :2] = across[:, None, :1] * around
    normals[..., 2] = across[:, 1, None]
    row, column = np.meshgrid(np.arange(len(outline) - 1), np.arange(SIDES), indexing="ij")
    a = (row * (SIDES + 1) + column).ravel()
    b, c, d = a + 1, a + SIDES + 2, a + SIDES + 1
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    flat = vertices.reshape(-1, 3)
    return _shape(flat, normals.reshape(-1, 3), _without_slivers(flat, triangles))


def _without_slivers(vertices: Floats, triangles: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Those triangles that have an area: at a pole every other has none."""
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    areas = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    kept: npt.NDArray[np.intp] = triangles[areas > 1e-9 * areas.max()]
    return kept


def _box(half: Floats) -> Shape:
    corner = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)
    vertices: list[Floats] = []
    normals: list[Floats] = []
    triangles = []
    for axis in range(3):
        for side in (-1.0, 1.0):
            face = np.empty((4, 3))
            face[:, axis] = side
            face[:, [(axis + 1) % 3, (axis + 2) % 3]] = corner
            normal = np.zeros(3)
            normal[axis] = side
            first = 4 * len(vertices)
            order = [0, 1, 2, 0, 2, 3] if side > 0 else [0, 2, 1, 0, 3, 2]
            triangles.append(first + np.array(order).reshape(2, 3))
            vertices.append(face * half)
            normals.append(np.tile(normal, (4, 1)))
    return _shape(np.concatenate(vertices), np.concatenate(normals), np.concatenate(triangles))


def _mesh(model: mujoco.MjModel, mesh: int) -> Shape:
    first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
    face, faces = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
    return _smooth(model.mesh_vert[first : first + count], model.mesh_face[face : face + faces])


def _height_field(model: mujoco.MjModel, field: int) -> Shape:
    rows, columns = int(model.hfield_nrow[field]), int(model.hfield_ncol[field])
    x_half, y_half, top, _ = model.hfield_size[field]
    start = model.hfield_adr[field]
    heights = model.hfield_data[start : start + rows * columns] * top
    y, x = np.meshgrid(np.linspace(-y_half, y_half, rows), np.linspace(-x_half, x_half, columns), indexing="ij")
    row, column = np.meshgrid(np.arange(rows - 1), np.arange(columns - 1), indexing="ij")
    a = (row * columns + column).ravel()
    triangles = np.concatenate(
        [np.stack([a, a + 1, a + columns + 1], 1), np.stack([a, a + columns + 1, a + columns], 1)]
    )
    return _smooth(np.stack([x.ravel(), y.ravel(), heights], 1), triangles)


def _smooth(vertices: npt.NDArray[np.floating], triangles: npt.NDArray[np.integer]) -> Shape:
    """With the normals of the triangles around each vertex, weighted by area."""
    a, b, c = (vertices[triangles[:, k]].astype(np.float64) for k in range(3))
    across = np.cross(b - a, c - a)
    normals = np.zeros((len(vertices), 3))
    for k in range(3):
        np.add.at(normals, triangles[:, k], across)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    return _shape(vertices, normals, triangles)


def _joined(parts: Sequence[Shape]) -> Shape:
    starts = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
    return _shape(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate([part.normals for part in parts]),
        np.concatenate([part.triangles + start for part, start in zip(parts, starts, strict=True)]),
    )


def _shape(
    vertices: npt.NDArray[np.floating], normals: npt.NDArray[np.floating], triangles: npt.NDArray[np.integer]
) -> Shape:
    return Shape(vertices.astype(np.float32), normals.astype(np.float32), triangles.astype(np.int32))
