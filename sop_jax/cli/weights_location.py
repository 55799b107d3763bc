"""What `--weights W` means: a policy directory, or a run whose latest publication is wanted; and what its policy is told."""

import dataclasses
import pathlib

from configs.registry import find_demo
from sop_jax.algorithms.algorithm import Phase
from sop_jax.algorithms.registry import create_algorithm
from sop_jax.cli.arguments import UsageError
from sop_jax.cli.locations import as_store_url, find_in_repository, find_policy
from sop_jax.cli.output import note
from sop_jax.cli.run_directory import RunDirectory
from sop_jax.evaluation.evaluate import Candidate
from sop_jax.specs.conditioning import Conditioning
from sop_jax.weights.management import current_version
from sop_jax.weights.weight_store import WeightStore


def find_candidate(
    weights: str, version: int | None, base: str, condition: str | None = None, beta: float | None = None
) -> Candidate:
    """Who is meant, and what the policy is told: what `condition` and `beta` say, else the run's algorithm, else the
    publication. A base policy is told nothing else.

    Args:
        weights: a policy directory (with policy.json), a run (with config.json), or a store with publications.
        version: which publication of a run or store; None = the latest, 0 = the base policy.
        base: the base policy's directory; needed for a store, optional for a run.
        condition: put after the instruction; "" = nothing, None = what the weights say.
        beta: scale of classifier-free guidance; None = 1 with `condition`, else what the weights say.

    Raises:
        UsageError: nothing of the kind is there, or `beta` has nothing to scale.
    """
    candidate = _find(weights, version, base, asks=condition is None)
    told = candidate.conditioning if condition is None else Conditioning(condition)
    if beta is not None:
        if not told.suffix:
            raise UsageError(
                f"--beta scales how far a condition is followed, and {candidate.name} is told none: add --condition "
                "'Advantage: positive', say, or leave --beta out"
            )
        told = dataclasses.replace(told, guidance=beta)
    return dataclasses.replace(candidate, conditioning=told)


def _find(weights: str, version: int | None, base: str, asks: bool) -> Candidate:
    """As `find_candidate`, told what the weights say. `asks`: complain where they should say, and don't."""
    path = find_in_repository(weights)
    if (path / "policy.json").exists():
        if version:
            raise UsageError(
                f"{weights} is a policy directory, which has no versions: name a run or a store for --version"
            )
        if base:
            raise UsageError(f"{weights} is a policy directory, and whole: --base belongs to a run or a store")
        return Candidate(bundle=str(path))
    run, conditioning = RunDirectory(path), None
    if run.config.exists():
        config = find_demo(str(run.config))
        base = base or config.policy
        store = run.store_url
        conditioning = create_algorithm(config.learning.algorithm).conditioning(Phase.EVALUATING)
    elif "://" in weights or (path / "weights").is_dir():
        store = as_store_url(weights)
        if not base:
            raise UsageError(
                f"{weights} is a store: name the base policy that its publications build on, --base DIRECTORY"
            )
    else:
        raise UsageError(f"{weights} is neither a policy directory, nor a run, nor a store")
    wanted = _latest(store) if version is None else version
    if not wanted:
        return Candidate(bundle=str(find_policy(base)))
    return Candidate(str(find_policy(base)), store, wanted, conditioning or _told(store, wanted, asks))


def _told(store: str, version: int, asks: bool) -> Conditioning:
    """What the publication says; the bare instruction if it doesn't, or isn't there (whoever loads it says so)."""
    publication = WeightStore(store).read_manifest(version)
    if publication is None:
        return Conditioning()
    if publication.conditioning is None and asks:
        note(
            f"version {version} doesn't say what its policy is told, as it was published by an earlier sop-jax: it is "
            "evaluated with the bare instruction. RECAP's acts with --condition 'Advantage: positive' --beta 1.5"
        )
    return publication.conditioning or Conditioning()


def _latest(store: str) -> int:
    if store.startswith("file://") and not pathlib.Path(store.removeprefix("file://")).exists():
        raise UsageError(f"there is no store {store}")
    latest = current_version(store)
    if latest is None:
        raise UsageError(f"nothing was published in {store} yet; --version 0 is the base policy")
    return latest
