"""Who is told RECAP's words in the main-results study: its base policy, and what is learnt from it, at work and on trial."""

import contextlib
import dataclasses
import json
import types

import jax
import numpy as np
import pytest

from configs.studies import SMALL
from fleet_sim import crew_worker, fleet, learning_side
from fleet_sim.config import SimulatedFleetConfig, Stage
from fleet_sim.crew_worker import EpisodePlayer, WorkerSettings
from fleet_sim.learning_side import LearningSide
from fleet_sim.studies import main_results
from fleet_sim.studies.main_results import MainResults, Places
from fleet_sim.studies.methods import METHODS
from sop_jax.algorithms.algorithm import Phase
from sop_jax.algorithms.hg_dagger import HgDagger
from sop_jax.algorithms.recap.recap import POSITIVE, Recap, RecapConfig
from sop_jax.models.bundle import PolicyBundle, load_bundle
from sop_jax.models.normalization import identity_norm_stats
from sop_jax.models.pytrees import flatten_params, unflatten_params
from sop_jax.models.registry import create_model
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.conditioning import Conditioning
from sop_jax.specs.metrics import NoMetrics
from sop_jax.weights.partition import split_params
from sop_jax.weights.publisher import Publisher
from tests.cli.small_learner import SMALL as SMALL_POLICY

RECAP = Recap(RecapConfig(collecting_guidance=2.0, evaluating_guidance=3.0))
AT_WORK, ON_TRIAL, BARE = Conditioning(POSITIVE, 2.0), Conditioning(POSITIVE, 3.0), Conditioning()
STUDY = dataclasses.replace(SMALL.study, recap=RECAP.config, curve_points=2, retention_trials=0)


@pytest.fixture
def places(tmp_path):
    (tmp_path / "demonstrations" / "episodes").mkdir(parents=True)
    return Places(tmp_path / "policy", tmp_path / "demonstrations", tmp_path / "value", 1)


@pytest.fixture
def bundle():
    """A policy of a few hundred numbers."""
    params = create_model(SMALL_POLICY).init_params(jax.random.key(0))
    horizon = SMALL_POLICY.horizon
    return PolicyBundle(
        SMALL_POLICY, params, identity_norm_stats(SMALL_POLICY.state_dim, SMALL_POLICY.action_dim, horizon)
    )


def study_of(places, config=STUDY, kind=MainResults):
    return kind(config, places, lambda store, output: None)


@pytest.mark.parametrize(
    ("method", "recap_base_steps", "is_told"),
    [("sop_recap", 2000, True), ("offline_recap", 2000, True), ("sop_recap", 0, False), ("sop_hg_dagger", 2000, False)],
)
def test_a_studys_fleet_tells_its_base_the_words_if_the_base_has_learnt_them(
    places, tmp_path, monkeypatch, method, recap_base_steps, is_told
):
    made = []

    class Fleet:
        def __init__(self, config, bundle, bundle_dir, algorithm, root, num_workers, **options):
            made.append((bundle, bundle_dir, algorithm, options["base_is_told"]))

        def close(self):
            pass

    monkeypatch.setattr(main_results, "SimulatedFleet", Fleet)
    monkeypatch.setattr(main_results, "load_bundle", lambda path: path)
    study = study_of(places, dataclasses.replace(STUDY, recap_base_steps=recap_base_steps))
    chosen = METHODS[method]
    algorithm, policy = study._algorithm(chosen), study._base_of(chosen)
    with study.fleet(tmp_path / "cell", algorithm, 0, study.sampler_of(chosen), policy):
        pass
    ((loaded, acts, used, told),) = made
    assert loaded == acts == (places.recap_base if is_told else places.policy)
    assert told is is_told
    assert used.conditioning(Phase.COLLECTING) == (AT_WORK if "recap" in method else BARE)


@pytest.fixture
def policies(monkeypatch):
    """Stands in for policies in a worker: what each was told as it was made."""
    told = []

    class Policy:
        weights_base = norm_stats = "x"
        trained_template = None
        version = 0

        def warm_up(self, spec):
            pass

        def swap(self, params, version):
            self.version = version

    def make(bundle, chunking, conditioning):
        told.append(conditioning)
        return Policy()

    monkeypatch.setattr(crew_worker, "PolicyRunner", types.SimpleNamespace(from_bundle=make))
    monkeypatch.setattr(crew_worker, "load_bundle", lambda path: path)
    monkeypatch.setattr(crew_worker, "find_publication", lambda candidate: candidate)
    follower = types.SimpleNamespace(load=lambda publication, template: None)
    monkeypatch.setattr(crew_worker, "Follower", lambda *arguments: follower)
    return told


def worker_settings(monkeypatch, root, algorithm, base_is_told):
    """What a fleet tells its workers, as they read it."""
    told = []
    monkeypatch.setattr(fleet, "check_ready", lambda algorithm, tasks: None)
    monkeypatch.setattr(fleet, "LearningSide", lambda *arguments: types.SimpleNamespace(take_in_stored=lambda: None))
    monkeypatch.setattr(fleet, "Crew", lambda settings, *rest: told.append(settings))
    config = SimulatedFleetConfig({"restock_shelf": 1}, algorithm.config)
    fleet.SimulatedFleet(config, None, root, algorithm, root, 1, base_is_told=base_is_told)
    (settings,) = told
    return WorkerSettings.from_json(json.loads(json.dumps(settings)))


@pytest.mark.parametrize("base_is_told", [True, False])
def test_workers_tell_the_base_the_words_if_their_fleet_says_so_and_what_was_learnt_always(
    tmp_path, monkeypatch, policies, base_is_told
):
    player = EpisodePlayer(worker_settings(monkeypatch, tmp_path, RECAP, base_is_told))
    robot = types.SimpleNamespace(spec=None)
    for version in (0, 0, 1, 2):
        assert player._policy_of(version, robot).version == version
    base = AT_WORK if base_is_told else None
    assert policies == [base, AT_WORK]  # the base, once; publications, which share a policy


def test_other_methods_policies_are_told_nothing(tmp_path, monkeypatch, policies):
    player = EpisodePlayer(worker_settings(monkeypatch, tmp_path, HgDagger(), base_is_told=False))
    player._policy_of(3, types.SimpleNamespace(spec=None))
    assert policies == [BARE]


def test_a_simulated_fleets_publications_say_what_they_are_evaluated_with(tmp_path, monkeypatch, bundle):
    made = []
    monkeypatch.setattr(
        learning_side, "Publisher", lambda *words, **more: made.append(Publisher(*words, **more)) or made[-1]
    )
    config = SimulatedFleetConfig({"restock_shelf": 1}, RECAP.config)
    learning = LearningSide(config, bundle, RECAP, f"file://{tmp_path}/store/", ManualClock(), NoMetrics())
    try:
        assert made[0].publish(split_params(bundle.params, bundle.model.is_trained)[0], 1).conditioning == ON_TRIAL
    finally:
        learning.close()


@pytest.mark.parametrize(
    ("method", "recap_base_steps", "base", "learnt"),
    [
        ("sop_recap", 2000, ON_TRIAL, ON_TRIAL),
        ("sop_recap", 0, BARE, ON_TRIAL),
        ("sop_hg_dagger", 2000, BARE, BARE),
    ],
)
def test_a_trained_policy_is_judged_with_the_words_that_it_acts_with(
    places, tmp_path, method, recap_base_steps, base, learnt
):
    """On its curve too, on which it may still be the base."""
    journal = types.SimpleNamespace(last_version=7, episodes=())
    kept = {300.0: 0, 600.0: 4}

    class Fake(MainResults):
        @contextlib.contextmanager
        def fleet(self, *arguments):
            yield types.SimpleNamespace(
                keep_versions_at=lambda times: None,
                run=lambda stage: None,
                kept_versions=lambda: kept,
                journal=lambda: journal,
            )

        def evaluate(self, candidate, selection=False):
            return candidate

    config = dataclasses.replace(STUDY, recap_base_steps=recap_base_steps)
    study = study_of(places, config, Fake)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(main_results, "summarise_fleet", lambda journal: None)
        found = study._train(METHODS[method], 0, tmp_path / "cell", None)
    first, second = (point["evaluation"] for point in found["curve"])
    policy = places.recap_base if method == "sop_recap" and recap_base_steps else places.policy
    for candidate, version, told in ((first, 0, base), (second, 4, learnt), (found["evaluation"], 7, learnt)):
        assert (candidate.bundle, candidate.version) == (str(policy), version)
        assert candidate.conditioning == told
    assert first.store == ""
    assert second.store == f"file://{tmp_path}/cell/store/"


def test_recaps_base_is_what_its_prompt_taught_from_demonstrations(places, tmp_path, bundle):
    bundle.save(places.policy)
    asked, stages = [], []
    trained = flatten_params(split_params(bundle.params, bundle.model.is_trained)[0])
    learnt = unflatten_params({path: leaf + np.float32(1) for path, leaf in trained.items()})

    class Fake(MainResults):
        @contextlib.contextmanager
        def fleet(self, work, algorithm, seed, sampler, policy):
            asked.append((algorithm, sampler, policy))
            fingerprints = (bundle.fingerprint, bundle.norm.fingerprint)
            publisher = Publisher(f"file://{work}/store/", *fingerprints, ManualClock(10**9))
            for params in (unflatten_params(trained), learnt):
                last = publisher.publish(params, 1).version
            yield types.SimpleNamespace(run=stages.append, journal=lambda: types.SimpleNamespace(last_version=last))

    study = study_of(places, dataclasses.replace(STUDY, recap_base_steps=25), Fake)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(main_results, "summarise_fleet", lambda journal: None)
        study._make_recap_base(tmp_path / "cell")
    ((algorithm, sampler, policy),) = asked
    assert algorithm == dataclasses.replace(RECAP.config, value_function=str(places.value))
    assert (sampler.mode, sampler.fixed_online_share, policy) == ("fixed", 0.0, places.policy)
    assert stages == [Stage(0.0, then_steps=25)]
    made = load_bundle(places.recap_base)
    assert made.fingerprint != bundle.fingerprint
    for path, leaf in flatten_params(made.params).items():
        expected = trained[path] + np.float32(1) if path in trained else flatten_params(bundle.params)[path]
        np.testing.assert_array_equal(leaf, expected, "/".join(path))
    assert study._told_base().bundle == str(places.recap_base)
    assert study._told_base().conditioning == ON_TRIAL
