"""`sop weights bundle`: a publication and its base as one policy directory, a base to learn on from."""

import dataclasses
import pathlib
import shlex
import tempfile
from collections.abc import Sequence

from sop_jax.cli.arguments import UsageError, parse
from sop_jax.cli.finished_policy import PROVENANCE, hand_over
from sop_jax.cli.locations import as_store_url, find_policy
from sop_jax.cli.output import jsonable, print_json, say
from sop_jax.evaluation.provenance import describe as describe_machine
from sop_jax.evaluation.run_metrics import write_json
from sop_jax.models.bundle import load_bundle
from sop_jax.specs.clock import WallClock
from sop_jax.weights.management import make_bundle


@dataclasses.dataclass(frozen=True)
class BundleArguments:
    """Makes a policy directory of a publication and the base policy that it was trained from. It is a base policy of its own,
    for `sop learn`, `sop act` and `sop eval --weights`: publications made so far don't fit it."""

    store: str
    """Store root: a folder, or a URL (file://, gs://, s3://)."""

    base: str
    """Directory of the base policy that the publication was trained from."""

    output: pathlib.Path
    """The policy directory to make; must not exist or be empty. It appears when all is done."""

    version: int | None = None
    """Which publication; default: the newest."""

    json: bool = False
    """Print one JSON object as the last line."""

    def __post_init__(self) -> None:
        if self.version is not None and self.version < 1:
            raise ValueError(f"--version must be at least 1 (0 is the base policy itself), got {self.version}")


def run_bundle(argv: Sequence[str]) -> int:
    arguments = parse(BundleArguments, argv, "weights bundle")
    output, store = arguments.output, as_store_url(arguments.store)
    if output.exists() and any(output.iterdir()):
        raise UsageError(f"{output} is not empty: a policy needs a directory of its own")
    base = load_bundle(find_policy(arguments.base))
    bundle, publication = make_bundle(store, base, arguments.version)
    output.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.absolute().parent) as folder:
        made = pathlib.Path(folder) / "policy"
        fingerprint = bundle.save(made)
        provenance = {
            "command": shlex.join(["sop", "weights", "bundle", *argv]),
            "machine": describe_machine(WallClock().now_ns() / 1e9),
            "start": {"base policy": publication.base_fingerprint, "normalisation": publication.norm_fingerprint},
            "publication": {
                "store": store,
                "version": publication.version,
                "learner_step": publication.learner_step,
                "created_ns": publication.created_ns,
                "restores": publication.restores,
                "conditioning": publication.conditioning,
            },
        }
        write_json(made / PROVENANCE, jsonable(provenance))
        hand_over(made, output)
    say(
        f"{output}: version {publication.version} (learner step {publication.learner_step}) of base "
        f"{publication.base_fingerprint}, as a base of its own with fingerprint {fingerprint}"
    )
    if publication.conditioning is not None and publication.conditioning.suffix:
        told = publication.conditioning
        options = shlex.join(["--condition", told.suffix, "--beta", f"{told.guidance:g}"])
        say(f"it was trained to be told {told.describe()}: sop eval --weights {output} {options}")
    if arguments.json:
        print_json(
            {
                "policy": output,
                "fingerprint": fingerprint,
                "norm_fingerprint": bundle.norm.fingerprint,
                "base_fingerprint": publication.base_fingerprint,
                "version": publication.version,
                "learner_step": publication.learner_step,
            }
        )
    return 0
