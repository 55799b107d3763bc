"""Observations of one robot as batches of one, of the shapes that the policy was compiled for.

Legend: `H` horizon, `A` action dimensions, `S` state dimensions, `h w` image pixels.
"""

import threading
from typing import final

import numpy as np

from sop_jax.models.batch import BarePrompt, ObservationBatch
from sop_jax.models.chunking import ActionPrefix
from sop_jax.models.policy import PolicyModel
from sop_jax.specs.chunking import ChunkPrefix
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.records import Observation

_MAX_INSTRUCTIONS = 1024


@final
class ObservationEncoder:
    """Thread-safe. The first observation sets the shapes; another shape would compile anew, so it is refused.

    What is read is the instruction with the conditioning's suffix.
    """

    def __init__(self, model: PolicyModel, conditioning: Conditioning | None = None):
        self._model = model
        self._conditioning = conditioning or Conditioning()
        self._tokens: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._lock = threading.Lock()

    def encode(self, observation: Observation) -> ObservationBatch:
        """A batch of one; a camera without an image is masked.

        Raises:
            ValueError: no image of a camera that never gave one, or images or a state of another shape than at first.
        """
        images, mask = {}, {}
        with self._lock:
            for name in self._model.cameras:
                image = observation.images.get(name)
                shape = self._shapes.get(name)
                if shape is None and image is not None:
                    shape = self._shapes[name] = image.shape
                if shape is None or (image is not None and image.shape != shape):
                    raise ValueError(
                        f"the policy needs images of camera {name!r} of shape {shape or '[h, w, 3]'}, got "
                        f"{'none' if image is None else image.shape} (cameras given: {sorted(observation.images)})"
                    )
                images[name] = (np.zeros(shape, np.uint8) if image is None else image)[None]
                mask[name] = np.array([image is not None])
            tokens, token_mask = self._tokenize(self._conditioning.apply(observation.instruction))
            state = np.asarray(observation.state, np.float32)
            expected = self._shapes.setdefault("state", state.shape)
        if state.shape != expected:
            raise ValueError(f"the policy needs a state of shape {expected}, as at first, got {state.shape}")
        return ObservationBatch(images=images, image_mask=mask, state=state[None], tokens=tokens, token_mask=token_mask)

    def encode_bare_prompt(self, observation: Observation) -> BarePrompt | None:
        """The instruction alone, as a batch of one; None unless the conditioning asks for classifier-free guidance."""
        if not self._conditioning.is_guided:
            return None
        with self._lock:
            tokens, token_mask = self._tokenize(observation.instruction)
        return BarePrompt(tokens, token_mask, np.array([self._conditioning.guidance], np.float32))

    def encode_prefix(self, prefix: ChunkPrefix | None, wanted: bool) -> ActionPrefix | None:
        """A batch of one, or None if none is `wanted`; without a prefix one of which nothing is known.

        Raises:
            ValueError: an unwanted prefix, or one of another shape than [H, A].
        """
        if not wanted:
            if prefix is not None:
                raise ValueError("this policy was set up with chunking mode 'none' but was given a chunk to continue")
            return None
        shape = (self._model.horizon, self._model.action_dim)
        if prefix is None:
            prefix = ChunkPrefix(np.zeros(shape, np.float32), 0, 0)
        if prefix.actions.shape != shape:
            raise ValueError(f"a chunk prefix must be [H, A] = {shape}, got {prefix.actions.shape}")
        return ActionPrefix(
            np.asarray(prefix.actions, np.float32)[None],
            np.array([prefix.num_frozen], np.int32),
            np.array([prefix.num_known], np.int32),
        )

    def _tokenize(self, instruction: str) -> tuple[np.ndarray, np.ndarray]:
        if instruction not in self._tokens:
            if len(self._tokens) >= _MAX_INSTRUCTIONS:
                self._tokens.clear()
            self._tokens[instruction] = self._model.tokenize([instruction])
        return self._tokens[instruction]
