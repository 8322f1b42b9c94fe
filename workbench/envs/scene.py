"""What a viewer needs to draw an environment in three dimensions: solids, who moves each, and where they are.

A scene has no physics: an environment's ``render_state()`` says what it shows, and ``poses`` turns that into places.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Color = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Shape:
    """A surface of triangles in its solid's own frame.

    vertices   (n, 3) float32
    normals    (n, 3) float32, of length 1; vertices on an edge are there once for each side of it
    triangles  (m, 3) int32, counter-clockwise seen from outside
    """

    vertices: Array
    normals: Array
    triangles: npt.NDArray[np.int32]

    def bands(self, n: int) -> list[Shape]:
        """The surface in ``n`` bands of equal width along its longest axis, for a solid that several agents move."""
        if n == 1:
            return [self]
        low, high = self.vertices.min(0), self.vertices.max(0)
        axis = 2 - int((high - low)[::-1].argmax())  # z of those equally long
        centres = self.vertices[self.triangles].mean(1)[:, axis]
        band = ((centres - low[axis]) / max(float(high[axis] - low[axis]), 1e-9) * n).astype(int).clip(0, n - 1)
        return [self._part(self.triangles[band == k]) for k in range(n)]

    def _part(self, triangles: npt.NDArray[np.int32]) -> Shape:
        used, renumbered = np.unique(triangles, return_inverse=True)
        return Shape(self.vertices[used], self.normals[used], renumbered.reshape(-1, 3).astype(np.int32))


@dataclass(frozen=True)
class Solid:
    """One thing in the scene.

    name    as the model has it, or ""
    shape   its number among ``Scene.shapes``
    owners  the agents that move it, in the environment's order; none where nobody does, or everybody
    color   (red, green, blue, opacity) from 0 to 1, for what has no owner
    moves   whether its pose changes
    """

    name: str
    shape: int
    owners: tuple[str, ...]
    color: Color
    moves: bool


@dataclass(frozen=True)
class Floor:
    """A plane: a point on it, its rotation (w, x, y, z) from z upwards, half its extents along x and y (0: endless)."""

    position: tuple[float, float, float]
    quaternion: tuple[float, float, float, float]
    extents: tuple[float, float]


class Scene(ABC):
    """The solids of an environment.

    shapes            the surfaces, each shared by all solids that have it
    solids            in the order of ``poses``
    floors            planes that do not move
    resting           (solids, 7) float32, poses in the model's own initial state
    radius            of a sphere around all that moves, in that state
    seconds_per_step  simulated time from one sight to the next
    components        {agent: the name of each component of its action}
    """

    shapes: tuple[Shape, ...]
    solids: tuple[Solid, ...]
    floors: tuple[Floor, ...]
    resting: Array
    radius: float
    seconds_per_step: float
    components: dict[str, tuple[str, ...]]

    @abstractmethod
    def poses(self, sights: npt.NDArray[np.float64]) -> Array:
        """(n, solids, 7) float32 for n sights: position, then rotation (w, x, y, z) without jumps of sign."""
