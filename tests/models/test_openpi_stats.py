import dataclasses
import json

import numpy as np
import pytest

from sop_jax.models.normalization import (
    compute_norm_stats,
    decode_actions,
    encode_actions,
    identity_norm_stats,
    normalize_state,
)
from sop_jax.models.pi05.checkpoints.openpi_stats import format_openpi_stats, parse_openpi_stats
from sop_jax.models.pi05.checkpoints.stores import InvalidCheckpointError
from sop_jax.specs.records import EpisodeArrays

H = 2
STATS = {
    "norm_stats": {
        "state": {"mean": [1.0, -2.0], "std": [0.5, 4.0], "q01": [0.0, -10.0], "q99": [2.0, 6.0]},
        "actions": {"mean": [0.25, 3.0], "std": [2.0, 0.0], "q01": [-1.0, 2.0], "q99": [3.0, 2.0]},
    }
}


def parse(scheme, content=STATS, state_dim=3, action_dim=3, **options):
    return parse_openpi_stats(json.dumps(content), "stats.json", scheme, state_dim, action_dim, H, **options)


def openpi_normalize(x, entry, scheme):
    """Written down from openpi's `transforms.Normalize`: what has no statistics passes through."""
    x, dims = np.asarray(x, np.float64), len(entry["mean"])
    mean, std, q01, q99 = (np.asarray(entry[name]) for name in ("mean", "std", "q01", "q99"))
    known = x[..., :dims]
    known = (known - mean) / (std + 1e-6) if scheme == "mean_std" else (known - q01) / (q99 - q01 + 1e-6) * 2 - 1
    return np.concatenate([known, x[..., dims:]], axis=-1)


@pytest.mark.parametrize("scheme", ["mean_std", "quantile"])
def test_our_encoding_gives_openpis_numbers(scheme):
    norm, entries = parse(scheme), STATS["norm_stats"]
    state, actions = (
        np.array([[1.5, 4.0, 0.7]], np.float32),
        np.array([[[2.25, 2.0, 9.0], [0.0, 3.0, -1.0]]], np.float32),
    )
    np.testing.assert_allclose(
        normalize_state(norm, state, scheme), openpi_normalize(state, entries["state"], scheme), rtol=1e-6
    )
    encoded = encode_actions(norm, state, actions, scheme)
    np.testing.assert_allclose(encoded, openpi_normalize(actions, entries["actions"], scheme), rtol=1e-5)
    np.testing.assert_allclose(encoded[..., 2], actions[..., 2], rtol=1e-6)  # past the statistics
    np.testing.assert_allclose(decode_actions(norm, state, encoded, scheme), actions, rtol=1e-5, atol=1e-6)


def test_z_scores_and_percentiles_by_hand():
    state = np.array([[1.5, 4.0, 0.7]], np.float32)
    np.testing.assert_allclose(
        normalize_state(parse("mean_std"), state), [[0.5 / 0.500001, 6 / 4.000001, 0.7]], rtol=1e-6
    )
    np.testing.assert_allclose(
        normalize_state(parse("quantile"), state, "quantile"),
        [[1.5 / 2.000001 * 2 - 1, 14 / 16.000001 * 2 - 1, 0.7]],
        rtol=1e-5,
    )


def test_delta_actions_are_openpis():
    norm = parse("mean_std", delta_dims=(0,))
    state, actions = np.array([[1.5, 4.0, 0.7]], np.float32), np.array([[[2.25, 2.0, 9.0]] * H], np.float32)
    relative = actions - [1.5, 0, 0]
    np.testing.assert_allclose(
        encode_actions(norm, state, actions),
        openpi_normalize(relative, STATS["norm_stats"]["actions"], "mean_std"),
        rtol=1e-5,
    )
    with pytest.raises(InvalidCheckpointError, match=r"action dimensions \[3\], the policy has 3 actions"):
        parse("mean_std", delta_dims=(3,))


def test_statistics_of_a_larger_robot_are_cut():
    norm = parse("quantile", state_dim=1, action_dim=1)
    assert norm.state_low.tolist() == [0.0]
    assert norm.action_high.tolist() == [[3.0]] * H


def test_old_files_have_no_percentiles():
    entries = {name: {"mean": entry["mean"], "std": entry["std"]} for name, entry in STATS["norm_stats"].items()}
    norm = parse("mean_std", entries)  # without the outer key, too
    np.testing.assert_allclose(norm.state_mean, [1.0, -2.0, 0.0])
    with pytest.raises(InvalidCheckpointError, match=r"no percentiles \(q01, q99\)"):
        parse("quantile", entries)


@pytest.mark.parametrize("text", ["{}", "[]", "no json", '{"norm_stats": {"state": 1, "actions": 2}}'])
def test_other_files_are_refused(text):
    with pytest.raises(InvalidCheckpointError, match=r"stats.json: expected openpi's statistics"):
        parse_openpi_stats(text, "stats.json", "mean_std", 2, 2, H)


def our_own() -> EpisodeArrays:
    rng, num = np.random.default_rng(0), 20
    state = np.cumsum(rng.normal(0, 0.1, (num, 3)), axis=0).astype(np.float32)
    action = state + rng.normal(0, 0.1, (num, 3)).astype(np.float32)
    action[:, 1] = 0.5
    return EpisodeArrays(
        state=state,
        action=action,
        intervention=np.zeros(num, bool),
        policy_version=np.full(num, -1, np.int32),
        time_ns=np.arange(num),
        image_frames=np.arange(0, num, 3, dtype=np.int32),
    )


@pytest.mark.parametrize(
    "norm",
    [parse("quantile", delta_dims=(1,)), identity_norm_stats(3, 3, H), compute_norm_stats([our_own()], H, (2,))],
    ids=["from openpi", "identity", "our own, by step"],
)
def test_statistics_come_back_to_the_bit(norm):
    text = format_openpi_stats(norm)
    back = parse_openpi_stats(text, "stats.json", "quantile", 3, 3, H)
    for field in dataclasses.fields(norm):
        np.testing.assert_array_equal(getattr(back, field.name), getattr(norm, field.name), err_msg=field.name)
    assert back.fingerprint == norm.fingerprint
    assert set(json.loads(text)["norm_stats"]) == {"state", "actions"}


def test_statistics_by_step_need_the_policys_horizon():
    text = format_openpi_stats(compute_norm_stats([our_own()], H, (2,)))
    with pytest.raises(InvalidCheckpointError, match=r"statistics for 2 steps, the policy's horizon is 5"):
        parse_openpi_stats(text, "stats.json", "mean_std", 3, 3, 5)
