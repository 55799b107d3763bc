"""A publication and its base make a policy that is trained as its base was."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from sop_jax.models.bundle import PolicyBundle
from sop_jax.models.normalization import identity_norm_stats
from sop_jax.models.pi05.config import LoraConfig, Pi05Config
from sop_jax.models.pi05.lora import is_lora
from sop_jax.models.policy import abstract_params
from sop_jax.models.pytrees import flatten_params, unflatten_params
from sop_jax.models.registry import PRESETS, create_model
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.errors import InvalidPublicationError
from sop_jax.weights.management import make_bundle, rollback
from sop_jax.weights.partition import split_params
from sop_jax.weights.publisher import Publisher


@pytest.fixture(scope="module")
def base() -> PolicyBundle:
    """A small pi0.5 whose language model learns by low-rank additions alone; frozen leaves in bfloat16."""
    preset = PRESETS["pi05_tiny"]
    assert isinstance(preset, Pi05Config)
    config = dataclasses.replace(preset, language=dataclasses.replace(preset.language, lora=LoraConfig(2, 2.0)))
    model, rng = create_model(config), np.random.default_rng(0)
    shapes = flatten_params(abstract_params(model))
    params = {
        path: rng.normal(0, 0.1, leaf.shape).astype(np.float32 if model.is_trained(path) else jnp.bfloat16)
        for path, leaf in shapes.items()
    }
    norm = identity_norm_stats(config.state_dim, config.action_dim, config.horizon)
    return PolicyBundle(config, unflatten_params(params), norm)


def publish(root: str, bundle: PolicyBundle, change: float, step: int) -> int:
    """What a learner would have made of the bundle, had it added `change` to every trained number."""
    trained = flatten_params(split_params(bundle.params, bundle.model.is_trained)[0])
    changed = unflatten_params({path: leaf + np.float32(change) for path, leaf in trained.items()})
    publisher = Publisher(root, bundle.fingerprint, bundle.norm.fingerprint, ManualClock(10**9))
    return publisher.publish(changed, step).version


def test_what_was_trained_is_the_publications_and_the_rest_the_bases(base, store_url):
    publish(store_url, base, 1.0, 25)
    publish(store_url, base, 2.0, 50)
    for version, change, step in ((1, 1.0, 25), (2, 2.0, 50)):
        made, publication = make_bundle(store_url, base, version)
        assert (publication.version, publication.learner_step, made.config) == (version, step, base.config)
        new = flatten_params(made.params)
        for path, leaf in flatten_params(base.params).items():
            expected = leaf + np.float32(change) if base.model.is_trained(path) else leaf
            np.testing.assert_array_equal(new[path], expected, "/".join(path))
            assert new[path].dtype == leaf.dtype
    newest, publication = make_bundle(store_url, base)
    assert publication.version == 2
    additions = [path for path in flatten_params(newest.params) if is_lora(path)]
    assert additions
    assert all(newest.model.is_trained(path) for path in additions)
    assert not newest.model.is_trained((*additions[0][:-1], "w"))


def test_the_new_base_takes_only_what_was_trained_from_it(base, store_url):
    publish(store_url, base, 1.0, 25)
    made, _ = make_bundle(store_url, base)
    assert made.fingerprint != base.fingerprint
    with pytest.raises(InvalidPublicationError, match="another base model") as raised:
        make_bundle(store_url, made)
    assert "start with the bundle that the learner started from" in str(raised.value)
    assert publish(store_url, made, 0.5, 25) == 2  # versions go on
    assert make_bundle(store_url, made)[1].version == 2
    with pytest.raises(InvalidPublicationError, match="another base model"):
        make_bundle(store_url, base)  # the newest isn't of the old base any more
    assert make_bundle(store_url, base, 1)[0].fingerprint == made.fingerprint
    restored = rollback(store_url, 1, ManualClock(10**9))
    again, publication = make_bundle(store_url, base)
    assert (publication.version, publication.restores) == (restored.version, 1)
    assert again.fingerprint == made.fingerprint


def test_there_must_be_something_to_make_it_of(base, store_url):
    with pytest.raises(InvalidPublicationError, match=r"nothing was published in .*/weights/ yet"):
        make_bundle(store_url, base)
    with pytest.raises(InvalidPublicationError, match=r"there is no publication 3 in .*: it has none"):
        make_bundle(store_url, base, 3)
