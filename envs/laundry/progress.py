"""How much is left of a stage: how far the shirt's vertices are from where the stage takes them, on average."""

import numpy as np

from envs.laundry.config import LaundryConfig
from envs.laundry.layout import Pose, errors, fit, seen_order
from envs.laundry.situation import Goal, Situation

_STEP_OF = {"flatten": 0, "fold_left_sleeve": 1, "fold_right_sleeve": 2, "fold_bottom": 3}


def remaining_m(config: LaundryConfig, situation: Situation, goal: Goal, stage: str) -> float:
    """Mean distance in m of the vertices from their places at the end of `stage`."""
    shirt = config.shirt
    seen = situation.vertices[seen_order(shirt, situation.vertices), :2]
    if stage not in _STEP_OF:
        return float(errors(seen, shirt.folded, Pose(config.stack_centres_m[goal.stack], 0.0)).mean())
    shape = shirt.steps[_STEP_OF[stage]]
    still = np.ones(len(seen), bool) if stage == "flatten" else shirt.is_upper
    pose = fit(seen[still], shape[still])
    return float(np.mean(errors(seen, shape, pose)))
