"""Who collides with whom: a pair does if the type of one meets the affinity of the other.

The robot does not collide with its own arm, torso and head; its two arms collide with each other and with the world.
"""

WORLD_BIT, LEFT_BIT, RIGHT_BIT, BODY_BIT = 1, 2, 4, 8
ANYTHING = WORLD_BIT | LEFT_BIT | RIGHT_BIT | BODY_BIT

WORLD = {"contype": WORLD_BIT, "conaffinity": ANYTHING}
NOTHING = {"contype": 0, "conaffinity": 0}


def robot_bits(part: str) -> dict[str, int]:
    """MJCF attributes of a geom of the robot's `left` or `right` arm, or of its `body`."""
    kind, affinity = {
        "left": (LEFT_BIT, WORLD_BIT | RIGHT_BIT),
        "right": (RIGHT_BIT, WORLD_BIT | LEFT_BIT),
        "body": (BODY_BIT, WORLD_BIT),
    }[part]
    return {"contype": kind, "conaffinity": affinity}
