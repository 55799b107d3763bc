"""What enters a jitted policy: batches of raw observations, and of observations with their target chunks.

Legend: `B` batch, `S` state dimensions, `A` action dimensions, `H` horizon, `L` text tokens, `h w` image pixels.
"""

import dataclasses

from jaxtyping import Bool, Float, Int, UInt8

from sop_jax.models.pytrees import Leaf, register_record


@register_record
@dataclasses.dataclass(frozen=True)
class ObservationBatch:
    """What the policy sees, in raw units. `images` and `image_mask` have one key per camera of the policy.

    image_mask: False where a camera gave no image; its pixels are then ignored.
    state: measured joint positions [rad] and gripper closings [0 open .. 1 closed].
    tokens: the instruction as `PolicyModel.tokenize` gives it; `token_mask` is False on padding.
    """

    images: dict[str, UInt8[Leaf, "B h w 3"]]
    image_mask: dict[str, Bool[Leaf, " B"]]
    state: Float[Leaf, "B S"]
    tokens: Int[Leaf, "B L"]
    token_mask: Bool[Leaf, "B L"]


@register_record
@dataclasses.dataclass(frozen=True)
class BarePrompt:
    """Classifier-free guidance: the instruction without its suffix, beside an observation whose tokens carry it.

    guidance: the scale g of each example in v_u + g (v_c - v_u); v_u reads these tokens, v_c the observation's.
    """

    tokens: Int[Leaf, "B L"]
    token_mask: Bool[Leaf, "B L"]
    guidance: Float[Leaf, " B"]


@register_record
@dataclasses.dataclass(frozen=True)
class TrainBatch:
    """Observations and what to do about them.

    actions: absolute targets in raw units, one per control tick from the observation's own tick on.
    action_mask: weight of each action of the chunk in [0, 1]; 0 = this action doesn't teach.
    weight: weight of the whole example.
    """

    observation: ObservationBatch
    actions: Float[Leaf, "B H A"]
    action_mask: Float[Leaf, "B H"]
    weight: Float[Leaf, " B"]
