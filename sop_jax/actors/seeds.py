"""Seeds that follow from names and counts, so that an episode can be repeated without a log of random states."""

import hashlib

MAX_SEED = 2**31


def derive_seed(*parts: str | int) -> int:
    """A seed in [0, 2^31) from a tuple of names and numbers: equal parts give equal seeds, on every machine."""
    text = "/".join(f"{type(part).__name__}:{part}" for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % MAX_SEED


def episode_seed(base_seed: int, robot_id: str, count: int) -> int:
    """The seed of a robot's episode number `count`: it draws the scene, and the policy's noise follows from it."""
    return derive_seed(base_seed, robot_id, count)


def inference_seed(episode: int, frame: int) -> int:
    """The seed of the policy's sampling noise at one frame of an episode, from the episode's seed."""
    return derive_seed(episode, "inference", frame)
