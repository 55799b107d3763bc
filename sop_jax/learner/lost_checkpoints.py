"""A guard against a learner that begins anew where it was to go on, and takes all robots back with it."""

import os
import pathlib

import jax

from sop_jax.learner.checkpoints import has_checkpoint
from sop_jax.learner.hosts import told_by_first
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import Publication
from sop_jax.weights.management import list_publications


def refuse_to_start_over(
    checkpoints: pathlib.Path | None,
    root: str | os.PathLike[str],
    base_fingerprint: str,
    norm_fingerprint: str,
    on_purpose: bool = False,
) -> None:
    """Called before a learner begins, by all hosts of it: the first one decides. Only looks, and makes nothing.

    Without a checkpoint training begins at the base policy, while versions go on from those in the store: its first
    publication would be the newest, and all robots would swap to weights that have hardly learnt.

    The rule: no checkpoint, but publications of the same base after step 0, is refused. It strands no automatic restart,
    because a `Learner` writes its checkpoint of step 0 before it publishes: one that is killed at whatever moment has either
    published nothing or finds a checkpoint. Publications of another base don't count: no robot of this one takes them.

    Args:
        checkpoints: the learner's folder; None if it has none.
        root: the store that it publishes to.
        base_fingerprint: of the policy that it begins with.
        norm_fingerprint: of that policy's normalisation.
        on_purpose: publish from the base policy all the same.

    Raises:
        ConfigError: the learner would start over.
    """
    newest = None
    if jax.process_index() == 0 and not on_purpose and (checkpoints is None or not has_checkpoint(checkpoints)):
        newest = _newest_learnt(root, base_fingerprint, norm_fingerprint)
    version, step = told_by_first((newest.version, newest.learner_step) if newest is not None else (0, 0))
    if not version:
        return
    lacks = "no folder of checkpoints was given" if checkpoints is None else f"there is no checkpoint in {checkpoints}"
    raise ConfigError(
        f"{lacks}, but {os.fspath(root)} holds version {version} of this base policy, from learner step {step}: this learner "
        "would begin at the base policy and publish it over that. Give the --checkpoints of the learner that published "
        "it. If they are lost, make a policy of that version (`sop weights bundle`) and learn on from it as a new base "
        "(--policy, with a new folder of checkpoints). To publish from the base policy on purpose: --start-over"
    )


def _newest_learnt(root: str | os.PathLike[str], base_fingerprint: str, norm_fingerprint: str) -> Publication | None:
    """The newest publication that a robot of this policy would take and that has learnt something."""
    fitting = [
        publication
        for publication in list_publications(root)
        if (publication.base_fingerprint, publication.norm_fingerprint) == (base_fingerprint, norm_fingerprint)
        and publication.learner_step > 0
    ]
    return fitting[-1] if fitting else None
