"""A worker process of an evaluation: `python -m sop_jax.evaluation.worker TASK` (see `trial_pool`)."""

import dataclasses
import hashlib
import json
import pathlib
import sys

import envs
from sop_jax.actors.chunking import ChunkingConfig
from sop_jax.actors.policy_runner import PolicyRunner
from sop_jax.evaluation.evaluate import Candidate, WorkerTask
from sop_jax.evaluation.trial_pool import Identity, serve
from sop_jax.evaluation.trials import SideBySide, Workplace
from sop_jax.evaluation.world import EVALUATED_ROBOT, make_robot
from sop_jax.models.bundle import load_bundle
from sop_jax.specs.clock import WallClock
from sop_jax.specs.errors import InvalidPublicationError, SopError
from sop_jax.specs.records import Publication
from sop_jax.weights.follower import Follower
from sop_jax.weights.management import list_publications


def main(task: WorkerTask) -> None:
    """Loads the policy, makes the robot, and runs the trials that are asked for."""
    worlds, stages = [], []
    for world in task.worlds:
        robot = make_robot(world, WallClock(), EVALUATED_ROBOT)
        worlds.append(robot.world)
        stages.append(robot.stage_names)
        robot.close()
    identity = Identity(worlds=tuple(worlds), stages=tuple(stages))
    if task.candidate.is_expert:
        serve(make_trials(task, None), identity)
        return
    policy = load_policy(task.candidate, task.rollout.chunking)
    digest = weights_digest(task.candidate, policy)
    identity = dataclasses.replace(identity, policy_version=policy.version, base=policy.weights_base, weights=digest)
    serve(make_trials(task, policy), identity)


def make_trials(task: WorkerTask, policy: PolicyRunner | None) -> SideBySide:
    """The task's trials in this process; `policy` None: of the worlds' experts."""
    clock = WallClock()

    def make_workplace(index: int) -> Workplace:
        robot = make_robot(task.worlds[index], clock, EVALUATED_ROBOT)
        return Workplace(robot, envs.make_expert(robot.environment) if policy is None else None)

    return SideBySide(make_workplace, policy, task.rollout, clock, task.side_by_side)


def load_policy(candidate: Candidate, chunking: ChunkingConfig | None = None) -> PolicyRunner:
    """The base policy, or a publication on top of it. Raises InvalidBundleError, InvalidPublicationError."""
    bundle = load_bundle(pathlib.Path(candidate.bundle))
    policy = PolicyRunner.from_bundle(bundle, chunking, candidate.conditioning)
    if candidate.version:
        follower = Follower(candidate.store, policy.weights_base, policy.norm_stats)
        publication = find_publication(candidate)
        policy.swap(follower.load(publication, policy.trained_template), publication.version)
    return policy


def weights_digest(candidate: Candidate, policy: PolicyRunner) -> str:
    """Tells weights apart: the base's fingerprint, or a digest of the publication's checksums."""
    if not candidate.version:
        return policy.weights_base
    files = sorted(find_publication(candidate).files.items())
    return hashlib.sha256(json.dumps([policy.weights_base, files]).encode()).hexdigest()[:16]


def find_publication(candidate: Candidate) -> Publication:
    """The candidate's publication. Raises InvalidPublicationError if the store doesn't have it (any more)."""
    published = {publication.version: publication for publication in list_publications(candidate.store)}
    if candidate.version not in published:
        raise InvalidPublicationError(
            f"{candidate.store} holds no version {candidate.version}; it has {sorted(published)[-5:]} (the last five). Old "
            "versions are removed unless they are pinned."
        )
    return published[candidate.version]


if __name__ == "__main__":
    try:
        main(WorkerTask.from_json(sys.argv[1]))
    except SopError as error:  # one line for the pool to pass on
        sys.stderr.write(" ".join(str(error).split()) + "\n")
        sys.exit(2)
