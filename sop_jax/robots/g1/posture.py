"""Whether lift, waist and head are where the configuration says: the body model stands on them."""

from sop_jax.robots.g1.config import PostureConfig
from sop_jax.robots.g1.link import BodyState


def find_deviations(posture: PostureConfig, state: BodyState) -> list[str]:
    """What isn't where the configuration says, in words."""
    pairs = (
        ("lift", state.waist[1], posture.lift_m, posture.tolerance_m, "m"),
        ("waist pitch", state.waist[0], posture.waist_pitch_rad, posture.tolerance_rad, "rad"),
        ("head yaw", state.head[0], posture.head_yaw_rad, posture.tolerance_rad, "rad"),
        ("head pitch", state.head[1], posture.head_pitch_rad, posture.tolerance_rad, "rad"),
    )
    return [
        f"{name} is at {measured:.4f} {unit}, expected {wanted:.4f} within {tolerance}"
        for name, measured, wanted, tolerance, unit in pairs
        if abs(measured - wanted) > tolerance
    ]
