"""How a cloth lies compared with where its vertices belong: pose, and what is left over. Pure functions on arrays.

`V` vertices, positions [V, 2] in m. "Seen" means indexed as the flat shirt is, left on the robot's left: a shirt that
lies on its face is its own mirror image, so it is read through `Shirt.mirrored`.
"""

import dataclasses

import numpy as np

from envs.laundry.shirt import Shirt

_PIXEL_M = 0.004
_SAMPLES = 9  # a side of a triangle: finer than a pixel


@dataclasses.dataclass(frozen=True)
class Pose:
    """A place on the table: `centre` [2] in m and `yaw_rad` about the vertical."""

    centre: np.ndarray
    yaw_rad: float

    @property
    def rotation(self) -> np.ndarray:
        """Rotation matrix [2, 2]."""
        sin, cos = np.sin(self.yaw_rad), np.cos(self.yaw_rad)
        return np.array([[cos, -sin], [sin, cos]])

    def place(self, shape: np.ndarray) -> np.ndarray:
        """A shape [..., 2] in its own frame, put there."""
        return shape @ self.rotation.T + self.centre

    def local(self, points: np.ndarray) -> np.ndarray:
        """Points [..., 2] of the table in the frame of the pose."""
        return (points - self.centre) @ self.rotation

    def kept_near(self, other: "Pose", distance_m: float, yaw_rad: float) -> "Pose":
        """The nearest pose that is no further than so from another."""
        offset = self.centre - other.centre
        scale = min(1.0, distance_m / max(float(np.linalg.norm(offset)), 1e-9))
        turn = (self.yaw_rad - other.yaw_rad + np.pi) % (2 * np.pi) - np.pi
        return Pose(other.centre + scale * offset, other.yaw_rad + float(np.clip(turn, -yaw_rad, yaw_rad)))


def fit(points: np.ndarray, shape: np.ndarray) -> Pose:
    """The pose that brings a shape [N, 2] closest to points [N, 2], least squares (Kabsch)."""
    middle, centre = shape.mean(axis=0), points.mean(axis=0)
    covariance = (shape - middle).T @ (points - centre)
    yaw = float(np.arctan2(covariance[0, 1] - covariance[1, 0], covariance[0, 0] + covariance[1, 1]))
    turn = Pose(np.zeros(2), yaw)
    return Pose(centre - turn.place(middle), yaw)


def errors(points: np.ndarray, shape: np.ndarray, pose: Pose) -> np.ndarray:
    """How far each point [N, 2] is from its place [N]."""
    return np.linalg.norm(points - pose.place(shape), axis=1)


def seen_order(shirt: Shirt, vertices: np.ndarray) -> np.ndarray:
    """Which vertex plays the part of each vertex of the flat shirt [V]: itself, or its mirror image."""
    sideways = vertices[:, 1] - vertices[:, 1].mean()
    on_its_face = float(shirt.rest[:, 1] @ sideways) < 0.0
    return shirt.mirrored if on_its_face else np.arange(len(vertices))


def outline_overlap(first: np.ndarray, second: np.ndarray, triangles: np.ndarray) -> float:
    """Intersection over union of the areas that two shapes [V, 2] of one mesh cover, at 4 mm."""
    low = np.minimum(first.min(axis=0), second.min(axis=0))
    size = np.ceil((np.maximum(first.max(axis=0), second.max(axis=0)) - low) / _PIXEL_M).astype(int) + 1
    one, other = (_covered(shape - low, triangles, size) for shape in (first, second))
    return float((one & other).sum() / (one | other).sum())


def _covered(shape: np.ndarray, triangles: np.ndarray, size: np.ndarray) -> np.ndarray:
    steps = np.linspace(0.0, 1.0, _SAMPLES)
    u, v = (grid.ravel() for grid in np.meshgrid(steps, steps))
    u, v = u[u + v <= 1.0], v[u + v <= 1.0]
    weights = np.stack([1.0 - u - v, u, v], axis=1)
    pixels = (np.einsum("sk,tkd->tsd", weights, shape[triangles]) / _PIXEL_M).astype(int).reshape(-1, 2)
    covered = np.zeros(size, bool)
    covered[pixels[:, 0], pixels[:, 1]] = True
    return covered
