"""Which part of a camera's frame becomes the picture: robots and imported datasets show the same field of view by it."""

import numpy as np


def crop_to_proportions(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """The largest centred part, [rows, columns, 3], of a frame [h, w, 3] with the proportions of height x width; a view."""
    frame_height, frame_width = frame.shape[:2]
    scale = min(frame_height / height, frame_width / width)
    rows = min(frame_height, max(1, round(height * scale)))
    columns = min(frame_width, max(1, round(width * scale)))
    top, left = (frame_height - rows) // 2, (frame_width - columns) // 2
    return frame[top : top + rows, left : left + columns]
