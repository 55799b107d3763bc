"""The compact policy: patch encoders that the instruction steers, and a flow-matching MLP. Made for CPUs.

The instruction modulates (FiLM) the features of every patch of every camera before anything is pooled, so that "the red
can" can light up red patches; flattened patch features keep where they are. One pass of the encoder serves several
(noise, t) draws of the cheap head.

Legend: `B` batch, `N` draws, `S` state dimensions, `A` action dimensions, `H` horizon, `L` text tokens, `P` patches,
`E` text features, `F` observation features, `W` head width.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Int32, PRNGKeyArray, UInt8

from sop_jax.models import flow
from sop_jax.models.added_fields import ADDED
from sop_jax.models.batch import BarePrompt, ObservationBatch, TrainBatch
from sop_jax.models.chunking import ActionPrefix, draw_prefix, is_frozen, mean_of_open, soft_mask
from sop_jax.models.images import patchify, resize_with_pad
from sop_jax.models.normalization import NormStats, decode_actions, encode_actions, normalize_state
from sop_jax.models.policy import check_inputs, merge_network, split_network, with_bare_prompt
from sop_jax.models.pytrees import Leaf, Params
from sop_jax.models.text import HashTokenizer
from sop_jax.specs.chunking import Guidance

_TIME_DIM = 64
_STATE_LIMIT = 8.0
_HASH_BUCKETS = 256


@dataclasses.dataclass(frozen=True)
class CompactConfig:
    """Sizes of the compact policy. Widths are in features.

    num_draws: (noise, t) pairs per observation in the loss. num_steps: Euler steps of sampling.
    noise_scale: spread of the noise from which sampling starts; see `flow.start_noise`.
    max_training_delay: the loss gives the first d actions of each chunk clean, d uniform in 0 .. this many, and counts the
        others only (`mean_of_open`), so that the policy learns to continue a chunk (chunking mode "trained"); 0 = off.
    """

    kind: ClassVar[str] = "compact"

    cameras: tuple[str, ...] = ("head", "hand_left", "hand_right")
    image_size: int = 64
    patch_size: int = 8
    state_dim: int = 16
    action_dim: int = 16
    horizon: int = 16
    max_tokens: int = 24
    text_width: int = 64
    patch_width: int = 128
    patch_features: int = 32
    camera_features: int = 128
    state_features: int = 64
    head_width: int = 512
    head_depth: int = 3
    num_draws: int = 4
    num_steps: int = 6
    noise_scale: float = dataclasses.field(default=1.0, metadata=ADDED)
    max_training_delay: int = dataclasses.field(default=0, metadata=ADDED)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and value < 1 and field.name != "max_training_delay":
                raise ValueError(f"CompactConfig.{field.name} must be at least 1, got {value}")
        if self.image_size % self.patch_size:
            raise ValueError(
                f"CompactConfig.image_size must be a multiple of patch_size, got {self.image_size} and {self.patch_size}"
            )
        if not self.cameras or len(set(self.cameras)) != len(self.cameras):
            raise ValueError(f"CompactConfig.cameras must be distinct and at least one, got {self.cameras}")
        flow.check_noise_scale("CompactConfig", self.noise_scale)
        if not 0 <= self.max_training_delay < self.horizon:
            raise ValueError(
                f"CompactConfig.max_training_delay must be at least 0 and below the horizon {self.horizon}, got "
                f"{self.max_training_delay}"
            )
        if self.state_dim < self.action_dim:
            raise ValueError(
                f"CompactConfig.state_dim must be at least action_dim, got {self.state_dim} < {self.action_dim}"
            )

    @property
    def num_patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2

    @property
    def num_features(self) -> int:
        """Of one observation, all towers together."""
        return len(self.cameras) * self.camera_features + self.state_features + self.text_width


class TextEncoder(nnx.Module):
    """Words with their neighbours, then attention pooling: word order counts, and single words stand out."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        # A 16-bit id is two 8-bit ones, so that 512 rows tell 65,536 words apart.
        self.high = nnx.Embed(_HASH_BUCKETS, width, rngs=rngs)
        self.low = nnx.Embed(_HASH_BUCKETS, width, rngs=rngs)
        self.window = nnx.Linear(3 * width, width, rngs=rngs)
        self.score = nnx.Linear(width, 4, rngs=rngs)
        self.out = nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, tokens: Int[Array, "B L"], mask: Bool[Array, "B L"]) -> Float[Array, "B E"]:
        words = self.high(tokens // _HASH_BUCKETS) + self.low(tokens % _HASH_BUCKETS)
        words = jnp.where(mask[..., None], words, 0.0)
        before = jnp.pad(words, ((0, 0), (1, 0), (0, 0)))[:, :-1]
        after = jnp.pad(words, ((0, 0), (0, 1), (0, 0)))[:, 1:]
        features = words + nnx.gelu(self.window(jnp.concatenate([before, words, after], axis=-1)))
        scores = jnp.where(mask[..., None], self.score(features), -1e9)
        attention = jnp.where(mask[..., None], jax.nn.softmax(scores, axis=1), 0.0)
        pooled = jnp.einsum("blk,ble->bke", attention, features)
        return nnx.gelu(self.out(pooled.reshape(tokens.shape[0], -1)))


class CameraEncoder(nnx.Module):
    """Patches -> features modulated by the text -> one vector that knows where things are."""

    def __init__(self, config: CompactConfig, rngs: nnx.Rngs):
        patch_inputs = 3 * config.patch_size**2
        self.patch = nnx.Linear(patch_inputs, config.patch_width, rngs=rngs)
        self.film = nnx.Linear(config.text_width, 2 * config.patch_width, rngs=rngs)
        self.mix = nnx.Linear(config.patch_width, config.patch_features, rngs=rngs)
        self.out = nnx.Linear(config.num_patches * config.patch_features, config.camera_features, rngs=rngs)
        self.patch_size = config.patch_size

    def __call__(self, images: UInt8[Array, "B h w 3"], text: Float[Array, "B E"]) -> Float[Array, "B C"]:
        patches = patchify(images, self.patch_size)
        batch, num_patches, _ = patches.shape
        scale, shift = jnp.split(self.film(text)[:, None], 2, axis=-1)
        features = self.patch(patches.reshape(batch * num_patches, -1)).reshape(batch, num_patches, -1)
        features = nnx.gelu(features * (1 + scale) + shift)
        features = nnx.gelu(self.mix(features.reshape(batch * num_patches, -1)))
        return self.out(features.reshape(batch, -1))


class FlowHead(nnx.Module):
    """The velocity of a noisy chunk, given the observation's features and the time."""

    def __init__(self, config: CompactConfig, obs_features: int, rngs: nnx.Rngs):
        width, chunk = config.head_width, config.horizon * config.action_dim
        self.obs = nnx.Linear(obs_features, width, rngs=rngs)
        self.chunk = nnx.Linear(chunk, width, use_bias=False, rngs=rngs)
        self.time = nnx.Linear(_TIME_DIM, width, use_bias=False, rngs=rngs)
        if config.max_training_delay:  # nothing at first, so that a policy can learn it later
            zeros = nnx.initializers.zeros_init()
            self.held = nnx.Linear(config.horizon, width, use_bias=False, kernel_init=zeros, rngs=rngs)
        self.num_hidden = config.head_depth - 1
        self.hidden = nnx.Dict({f"layer_{i}": nnx.Linear(width, width, rngs=rngs) for i in range(self.num_hidden)})
        self.out = nnx.Linear(width, chunk, rngs=rngs)

    def condition(self, features: Float[Array, "B F"]) -> Float[Array, "B W"]:
        """The observation's share of the first layer: the same for every draw and every Euler step."""
        return self.obs(features)

    def __call__(
        self,
        condition: Float[Array, "B 1 W"],
        chunks: Float[Array, "B N H A"],
        time: Float[Array, "B N"],
        held: Bool[Array, "B N H"] | None = None,
    ) -> Float[Array, "B N H A"]:
        """`held`: the actions that stand clean in `chunks`."""
        # Two-dimensional matrix products: XLA's CPU backend is twice as slow on the gradients of batched ones.
        batch, draws = time.shape
        x = self.chunk(chunks.reshape(batch * draws, -1)) + self.time(flow.embed_time(time.reshape(-1), _TIME_DIM))
        if held is not None:
            x = x + self.held(held.reshape(batch * draws, -1).astype(x.dtype))
        x = nnx.gelu(condition + x.reshape(batch, draws, -1)).reshape(batch * draws, -1)
        for i in range(self.num_hidden):
            x = x + nnx.gelu(self.hidden[f"layer_{i}"](x))
        return self.out(x).reshape(chunks.shape)


class CompactTowers(nnx.Module):
    """Text encoder, one encoder per camera, and the state: what a policy and a value function have in common."""

    def __init__(self, config: CompactConfig, rngs: nnx.Rngs):
        self.text = TextEncoder(config.text_width, rngs)
        self.camera = nnx.Dict({name: CameraEncoder(config, rngs) for name in config.cameras})
        self.state = nnx.Linear(config.state_dim, config.state_features, rngs=rngs)
        self.image_size = config.image_size

    def read(self, observation: ObservationBatch, state: Float[Array, "B S"]) -> Float[Array, "B F"]:
        """Features of the observation; `state` is normalised."""
        text = self.text(jnp.asarray(observation.tokens), jnp.asarray(observation.token_mask))
        features = [text, self.state(state)]
        for name, encoder in self.camera.items():
            images = resize_with_pad(observation.images[name], self.image_size)
            features.append(encoder(images, text) * jnp.asarray(observation.image_mask[name])[:, None])
        return nnx.gelu(jnp.concatenate(features, axis=-1))


class CompactNetwork(CompactTowers):
    """The towers and the flow's head."""

    def __init__(self, config: CompactConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.head = FlowHead(config, config.num_features, rngs)

    def encode(self, observation: ObservationBatch, state: Float[Array, "B S"]) -> Float[Array, "B 1 W"]:
        """Everything that does not depend on noise and time; `state` is normalised."""
        return self.head.condition(self.read(observation, state))[:, None]


@dataclasses.dataclass(frozen=True)
class CompactPolicy:
    """`PolicyModel` of a `CompactConfig`."""

    config: CompactConfig

    @property
    def horizon(self) -> int:
        return self.config.horizon

    @property
    def action_dim(self) -> int:
        return self.config.action_dim

    @property
    def cameras(self) -> tuple[str, ...]:
        return self.config.cameras

    @functools.cached_property
    def _graphdef(self) -> Any:
        return nnx.split(nnx.eval_shape(lambda: CompactNetwork(self.config, nnx.Rngs(0))))[0]

    def init_params(self, key: PRNGKeyArray) -> Params:
        return split_network(CompactNetwork(self.config, nnx.Rngs(params=key)))

    def loss(self, params: Params, norm: NormStats, batch: TrainBatch, key: PRNGKeyArray) -> Float[Array, "B H"]:
        check_inputs(self, norm, batch.observation)
        network = merge_network(self._graphdef, params)
        actions = encode_actions(norm, batch.observation.state, batch.actions)[:, None]
        max_delay = self.config.max_training_delay
        noise_key, time_key, *held_key = jax.random.split(key, 3 if max_delay else 2)
        draws = (actions.shape[0], self.config.num_draws)
        active = norm.action_is_active[None, None, None]
        noise = jax.random.normal(noise_key, (*draws, *actions.shape[2:])) * active
        time = flow.sample_time(time_key, draws)
        held = self._draw_held(held_key[0], draws) if max_delay else None
        own_time = time[..., None] if held is None else jnp.where(held, 0.0, time[..., None])
        noisy, target = flow.interpolate(noise, jnp.broadcast_to(actions, noise.shape), own_time[..., None])
        predicted = network.head(self._encode(network, norm, batch.observation), noisy, time, held)
        # Idle dimensions are decoded to a constant, so there is nothing to learn about them.
        error = jnp.where(active, jnp.square(predicted - target), 0.0).sum(-1) / jnp.maximum(active.sum(), 1)
        return error.mean(axis=1) if held is None else mean_of_open(error, held, max_delay)

    def _draw_held(self, key: PRNGKeyArray, draws: tuple[int, int]) -> Bool[Array, "B N H"]:
        """Which actions the loss gives away."""
        held = draw_prefix(key, draws[0] * draws[1], self.horizon, self.config.max_training_delay)
        return held.reshape(*draws, self.horizon)

    def sample_actions(
        self,
        params: Params,
        norm: NormStats,
        observation: ObservationBatch,
        key: PRNGKeyArray,
        num_steps: int | None = None,
        *,
        action_prefix: ActionPrefix | None = None,
        guidance: Guidance | None = None,
        bare_prompt: BarePrompt | None = None,
    ) -> Float[Array, "B H A"]:
        check_inputs(self, norm, observation)
        network = merge_network(self._graphdef, params)
        both = observation if bare_prompt is None else with_bare_prompt(observation, bare_prompt)
        condition = self._encode(network, norm, both)
        shape = (observation.state.shape[0], 1, self.horizon, self.action_dim)
        active = norm.action_is_active[None, None, None]

        def velocity(x: Array, time: Array) -> Array:
            if time.ndim < 3:
                return network.head(condition, x, jnp.broadcast_to(time, x.shape[:2])) * active
            # A time per action: 0 where a chunk is continued, one time for all others.
            return network.head(condition, x, time.max(axis=-1), time == 0.0) * active

        followed: flow.Velocity = velocity
        if bare_prompt is not None:
            followed = flow.guide_prompt(velocity, jnp.asarray(bare_prompt.guidance)[:, None, None, None])
        start = followed, flow.start_noise(key, shape, self.config.noise_scale) * active
        if action_prefix is not None:
            start = self._continue(*start, norm, observation, action_prefix, guidance)
        chunk = flow.integrate(*start, num_steps or self.config.num_steps)
        return decode_actions(norm, jnp.asarray(observation.state), chunk[:, 0])

    def is_trained(self, path: tuple[str, ...]) -> bool:
        del path
        return True

    def tokenize(self, instructions: Sequence[str]) -> tuple[Int32[np.ndarray, "B L"], Bool[np.ndarray, "B L"]]:
        return HashTokenizer(vocab_size=_HASH_BUCKETS**2, max_tokens=self.config.max_tokens).encode(instructions)

    def _continue(
        self,
        velocity: flow.Velocity,
        noise: Float[Array, "B 1 H A"],
        norm: NormStats,
        observation: ObservationBatch,
        prefix: ActionPrefix,
        guidance: Guidance | None,
    ) -> tuple[flow.Velocity, Float[Array, "B 1 H A"]]:
        """The velocity and the start of a chunk that continues another."""
        target = encode_actions(norm, observation.state, jnp.asarray(prefix.actions))[:, None]
        if guidance is not None:
            weight = soft_mask(prefix, guidance.schedule)[:, None, :, None]
            return flow.guide(velocity, target, weight, guidance.max_weight), noise
        if not self.config.max_training_delay:
            raise ValueError(
                "this policy was not trained to continue a chunk (its config has max_training_delay = 0); use chunking mode "
                "'guided', or train it with max_training_delay above 0"
            )
        held = is_frozen(prefix, self.config.max_training_delay)[:, None]
        return flow.hold(velocity, held), jnp.where(held[..., None], target, noise)

    def _encode(self, network: Any, norm: NormStats, observation: ObservationBatch) -> Array:
        return network.encode(observation, limited_state(norm, observation.state))


def limited_state(norm: NormStats, state: Float[Leaf, "B S"]) -> Float[Array, "B S"]:
    """Normalised, and kept from running away where a joint leaves the range of the data."""
    return normalize_state(norm, state).clip(-_STATE_LIMIT, _STATE_LIMIT)
