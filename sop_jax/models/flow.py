"""Flow matching: the straight path between noise and actions, and its integration.

The time convention of pi0: **t = 1 is noise, t = 0 is actions**; sampling runs t from 1 down to 0.

Legend: `B` batch, `D` embedding width, `N` (noise, t) draws.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

_FURTHEST = 5.0  # of a normalised action: most lie within -1 .. 1 (quantiles), or within 3 (mean and deviation)

Velocity = Callable[[Float[Array, "*chunk"], Float[Array, "..."]], Float[Array, "*chunk"]]
"""(x, t) -> velocity there. `integrate` calls it with one time for all."""


def sample_time(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Times from Beta(1.5, 1) squeezed into (0.001, 1]: more often near noise."""
    # The distribution function of Beta(a, 1) is t^a, so its inverse at a uniform number draws from it.
    return jax.random.uniform(key, shape) ** (1 / 1.5) * 0.999 + 0.001


def interpolate(
    noise: Float[Array, "*chunk"], actions: Float[Array, "*chunk"], time: Float[Array, "..."]
) -> tuple[Float[Array, "*chunk"], Float[Array, "*chunk"]]:
    """The point on the path at `time` (which broadcasts against the chunk), and the velocity there."""
    return time * noise + (1 - time) * actions, noise - actions


def start_noise(key: PRNGKeyArray, shape: tuple[int, ...], scale: float) -> Float[Array, "..."]:
    """Where sampling starts. `scale` 1: as in training, chunks as varied as the demonstrations'. Smaller: nearer to the
    middle of what the model has learnt, at 0 always the same chunk for the same observation.

    A small policy's flow carries some of the noise through to its actions, afresh in every chunk, and a robot that has to
    press a flap or hit a grasp pays for it.
    """
    return scale * jax.random.normal(key, shape)


def check_noise_scale(owner: str, scale: float) -> None:
    """Raises ValueError unless 0 <= scale <= 1."""
    if not 0.0 <= scale <= 1.0:
        raise ValueError(f"{owner}.noise_scale must be in 0 .. 1, got {scale}")


def integrate(
    velocity: Velocity,
    noise: Float[Array, "*chunk"],
    num_steps: int,
) -> Float[Array, "*chunk"]:
    """Euler from noise (t = 1) to actions (t = 0) in `num_steps` equal steps; `velocity(x, t)` at each step's start."""
    if num_steps < 1:
        raise ValueError(f"sampling needs at least one step, got num_steps={num_steps}")

    def step(index: Array, x: Array) -> Array:
        return x - velocity(x, 1.0 - index / num_steps) / num_steps

    return jax.lax.fori_loop(0, num_steps, step, noise)


def embed_time(
    time: Float[Array, "*batch"], dim: int, min_period: float = 4e-3, max_period: float = 4.0
) -> Float[Array, "*batch {dim}"]:
    """Sines, then cosines, of `time` in [0, 1] at `dim / 2` periods spaced geometrically."""
    if dim % 2:
        raise ValueError(f"a time embedding has as many sines as cosines: dim must be even, got {dim}")
    frequency = 1 / (min_period * (max_period / min_period) ** np.linspace(0.0, 1.0, dim // 2))
    angle = 2 * jnp.pi * _turns(time[..., None], frequency.reshape((1,) * time.ndim + (-1,)))
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def _turns(time: Float[Array, "*batch 1"], frequency: np.ndarray) -> Float[Array, "*batch dims"]:
    """`time * frequency` less whole turns, to 1e-7.

    The plain float32 product is off by 1e-5 turns at 250 turns, which is 1e-4 in the sine. So both factors are split into 12
    leading bits and a rest: the product of the leading bits is exact, and the rest is small.
    """
    mantissa, exponent = np.frexp(frequency)
    leading = np.ldexp(np.round(mantissa * 4096), exponent - 12)
    rest = (frequency - leading).astype(np.float32)
    leading = leading.astype(np.float32)
    leading_time = jnp.round(time * 4096) / 4096
    whole = leading_time * leading
    return whole - jnp.round(whole) + (time - leading_time) * leading + time * rest


def guide(
    velocity: Velocity,
    target: Float[Array, "*batch H A"],
    weight: Float[Array, "..."],
    max_strength: float,
) -> Velocity:
    """A velocity whose flow ends near `target` where `weight` (which broadcasts against the chunk) is not 0.

    Pseudo-inverse guidance as in real-time chunking (2506.07339, equations 1 to 4) with our time: the clean chunk that the
    velocity points at is x - t v; what it lacks to the target is pulled back through its Jacobian. Their v is our -v.

    The Jacobian of a denoiser has singular values of at most about 1. A network's that has trained long can have far larger
    ones, and the flow would run away; so a chunk is never pulled by more than it lacks. And once pulled away from all that it
    has seen, a network may point further out in every step, and with every chunk that continues the last; so the clean chunk
    it points at counts as no further out than `_FURTHEST`.
    """

    def guided(x: Array, time: Array) -> Array:
        def denoise(x: Array) -> tuple[Array, Array]:
            v = velocity(x, time)
            return x - time * v, v

        clean, pull_back, v = jax.vjp(denoise, x, has_aux=True)
        within = jnp.clip(clean, -_FURTHEST, _FURTHEST)
        v = jnp.where(within == clean, v, (x - within) / time)
        lacking = weight * (target - within)
        (push,) = pull_back(lacking)
        push = push * jnp.minimum(1.0, _size(lacking) / jnp.maximum(_size(push), 1e-12))
        return v - guidance_strength(time, max_strength) * push

    return guided


def _size(chunk: Float[Array, "*batch H A"]) -> Float[Array, "*batch 1 1"]:
    return jnp.sqrt(jnp.sum(jnp.square(chunk), axis=(-2, -1), keepdims=True))


def guidance_strength(time: Float[Array, "..."], max_strength: float) -> Float[Array, "..."]:
    """min(max_strength, t / ((1 - t) r^2)) with r^2 = t^2 / (t^2 + (1 - t)^2). It is infinite at t = 1."""
    scale = time * (1 - time)
    return jnp.minimum(max_strength, (time**2 + (1 - time) ** 2) / jnp.maximum(scale, 1e-6))


def guide_prompt(conditional_and_bare: Velocity, scale: Float[Array, "..."]) -> Velocity:
    """Classifier-free guidance: v_u + g (v_c - v_u), with `scale` g (which broadcasts against the chunk).

    The given velocity takes and returns twice the batch: the examples with their full prompts, then with their bare ones.
    """

    def guided(x: Array, time: Array) -> Array:
        # A time of all examples holds for both halves.
        both = conditional_and_bare(jnp.concatenate([x, x]), jnp.concatenate([time, time]) if time.ndim else time)
        conditional, bare = jnp.split(both, 2)
        return bare + scale * (conditional - bare)

    return guided


def hold(
    velocity: Velocity,
    held: Bool[Array, "..."],
) -> Velocity:
    """A velocity that leaves `held` actions (one flag per action) where they are, and tells the model that they are clean.

    `velocity` gets a time per action: 0 where held. Start the integration with the clean actions in their places.
    """

    def holding(x: Array, time: Array) -> Array:
        return jnp.where(held[..., None], 0.0, velocity(x, jnp.where(held, 0.0, time)))

    return holding
