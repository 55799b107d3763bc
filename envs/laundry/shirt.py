"""The T-shirt as a mesh: vertices, triangles, the named ones among them, and where each belongs when it is folded.

Shirt frame: x from hem to collar, y to the shirt's left, origin in the middle; metres. `V` is the number of vertices.
The front is the mirror image of the back, so a shirt that lies on its face looks and folds the same: `mirrored` maps
each vertex to its counterpart.
"""

import dataclasses
import functools

import numpy as np

_BODY_COLUMNS, _SLEEVE_COLUMNS = 7, 3
_ROWS, _SLEEVE_ROWS = 13, 4
_NECK_DEPTH = 0.55  # of one cell
_SLEEVE_DROP = 0.22  # how much lower each column of a sleeve sits, of one cell


@dataclasses.dataclass(frozen=True)
class Shirt:
    """The mesh and its names; named vertices are pairs (left, right).

    `steps` [4, V, 2]: where every vertex lies when the shirt is flat, has its left sleeve folded in, both, and the hem
    up at the collar: the ideal folds. `mirrored` [V], `triangles` [T, 3], `is_sleeve` [2, V] (the seams are body).
    `tops` are the sleeves' upper corners, `sleeves` the middles of their ends, `waists` where the last fold lies.
    """

    cell_m: float
    steps: np.ndarray
    mirrored: np.ndarray
    triangles: np.ndarray
    is_sleeve: np.ndarray
    tops: tuple[int, int]
    sleeves: tuple[int, int]
    shoulders: tuple[int, int]
    waists: tuple[int, int]
    hems: tuple[int, int]

    @property
    def rest(self) -> np.ndarray:
        """The flat shirt [V, 2]."""
        return self.steps[0]

    @functools.cached_property
    def folded(self) -> np.ndarray:
        """The folded shirt [V, 2] about its own middle."""
        packet = self.steps[-1]
        return packet - (packet.min(axis=0) + packet.max(axis=0)) / 2

    @functools.cached_property
    def is_edge(self) -> np.ndarray:
        """Which vertices lie on the outline [V]: on a side that only one triangle has."""
        sides = np.sort(np.concatenate([self.triangles[:, pair] for pair in ((0, 1), (1, 2), (2, 0))]), axis=1)
        found, times = np.unique(sides, axis=0, return_counts=True)
        return np.asarray(np.isin(np.arange(len(self.rest)), found[times == 1]))

    @functools.cached_property
    def is_body(self) -> np.ndarray:
        """Which vertices belong to neither sleeve [V]."""
        return np.logical_not(np.asarray(self.is_sleeve.any(axis=0)))

    @functools.cached_property
    def is_upper(self) -> np.ndarray:
        """Which vertices of the body lie still in the last fold [V]."""
        return self.is_body & (self.rest[:, 0] > -1e-9)


def make_shirt(cell_m: float) -> Shirt:
    """The mesh with `cell_m` between neighbours."""
    cells = _grid()
    index = {cell: number for number, cell in enumerate(cells)}
    rest = np.array([_place(*cell) for cell in cells]) * cell_m
    top, seam = _ROWS - 1, (_BODY_COLUMNS - 1) // 2
    outer = seam + _SLEEVE_COLUMNS
    columns = np.array([column for _, column in cells])

    def pair(row: int, column: int) -> tuple[int, int]:
        return index[row, column], index[row, -column]

    return Shirt(
        cell_m=cell_m,
        steps=_folds(rest, seam * cell_m),
        mirrored=np.array([index[row, -column] for row, column in cells]),
        triangles=_triangles(index),
        is_sleeve=np.stack([columns > seam, columns < -seam]),
        tops=pair(top, outer),
        sleeves=pair(top - _SLEEVE_ROWS // 2, outer),
        shoulders=pair(top, seam),
        waists=pair(top // 2, seam),
        hems=pair(0, seam),
    )


def _grid() -> list[tuple[int, int]]:
    """(row, column) of every vertex: row 0 is the hem, column 0 the middle, positive columns the shirt's left."""
    seam = (_BODY_COLUMNS - 1) // 2
    wide = range(-seam - _SLEEVE_COLUMNS, seam + _SLEEVE_COLUMNS + 1)
    return [
        (row, column) for row in range(_ROWS) for column in wide if abs(column) <= seam or row >= _ROWS - _SLEEVE_ROWS
    ]


def _place(row: int, column: int) -> tuple[float, float]:
    """Where a vertex lies at rest, in cells: the grid with a neck cut out and drooping sleeves."""
    seam = (_BODY_COLUMNS - 1) // 2
    x = row - (_ROWS - 1) / 2
    if row == _ROWS - 1:
        x -= _NECK_DEPTH * max(0.0, 1.0 - abs(column) / 2)
    return x - _SLEEVE_DROP * max(0, abs(column) - seam), float(column)


def _triangles(index: dict[tuple[int, int], int]) -> np.ndarray:
    """Two triangles a cell, their diagonals mirrored about the middle so that left and right stretch alike."""
    triangles = []
    for row, column in index:
        corners = [(row, column), (row + 1, column), (row + 1, column + 1), (row, column + 1)]
        if all(corner in index for corner in corners):
            a, b, c, d = (index[corner] for corner in corners)
            triangles += [(a, b, c), (a, c, d)] if column >= 0 else [(a, b, d), (b, c, d)]
    return np.array(triangles)


def _folds(rest: np.ndarray, seam_m: float) -> np.ndarray:
    """Reflects the left sleeve about its seam, the right one, then the lower half about the middle [4, V, 2]."""
    x, y = rest.T
    left_in = np.where(y > seam_m, 2 * seam_m - y, y)
    both_in = np.where(y < -seam_m, -2 * seam_m - y, left_in)
    steps = [(x, y), (x, left_in), (x, both_in), (np.abs(x), both_in)]
    return np.stack([np.stack(step, axis=1) for step in steps])
