"""The shipped policy listens: told anything that could be asked for in the scene, it succeeds no more often than chance."""

import pathlib

from sop_jax.evaluation.evaluate import Candidate, evaluate
from sop_jax.evaluation.world import WorldConfig

POLICY = pathlib.Path(__file__).parents[2] / "assets" / "policies" / "restock_compact"


def test_success_hangs_on_the_words():
    candidate = Candidate(str(POLICY))
    told = evaluate(candidate, WorldConfig(), 48, seed=7)
    shuffled = evaluate(candidate, WorldConfig(shuffle_instructions=True), 48, seed=7)
    chance = told.success / 9  # three items, three slots
    assert told.success > 0.2
    assert shuffled.success_low <= chance
    assert shuffled.success_high < told.success_low
