"""`sop weights ls|verify|rollback|pin|unpin|bundle`: a store's publications; `import|export`: weights of other projects."""

import dataclasses
import datetime
from collections.abc import Sequence

from rich.table import Table

from sop_jax.cli.arguments import parse
from sop_jax.cli.episodes import take_action
from sop_jax.cli.locations import as_store_url
from sop_jax.cli.output import console, print_json, say
from sop_jax.cli.weights_bundle import run_bundle
from sop_jax.cli.weights_exchange import run_export, run_import
from sop_jax.specs.clock import WallClock
from sop_jax.specs.errors import InvalidPublicationError
from sop_jax.specs.records import Publication
from sop_jax.weights.management import current_version, list_publications, pin, pinned_versions, rollback, unpin, verify

ACTIONS = ("ls", "verify", "rollback", "pin", "unpin", "bundle", "import", "export")


@dataclasses.dataclass(frozen=True)
class ListArguments:
    """Lists the publications that a store still holds; old ones are removed as new ones come."""

    store: str
    """Store root: a folder, or a URL (file://, gs://, s3://)."""

    json: bool = False
    """Print one JSON object as the last line."""


@dataclasses.dataclass(frozen=True)
class VerifyArguments:
    """Reads every byte of the publications and compares checksums. Exit code 1 if one is damaged."""

    store: str
    """Store root: a folder, or a URL."""

    version: int | None = None
    """Only this version."""

    json: bool = False
    """Print one JSON object as the last line."""


@dataclasses.dataclass(frozen=True)
class RollbackArguments:
    """Publishes an older version's weights again, as a new version; robots swap to it between episodes. Stop the learner
    first: it would publish over it."""

    store: str
    """Store root: a folder, or a URL."""

    version: int
    """The version whose weights come back."""

    json: bool = False
    """Print one JSON object as the last line."""


@dataclasses.dataclass(frozen=True)
class PinArguments:
    """Keeps a version however many new ones come; `unpin` lets it go like any other again."""

    store: str
    """Store root: a folder, or a URL."""

    version: int
    """The version to keep."""

    json: bool = False
    """Print one JSON object as the last line."""


@dataclasses.dataclass(frozen=True)
class UnpinArguments:
    """Lets a pinned version go like any other: when new ones come, unless robots act with it."""

    store: str
    """Store root: a folder, or a URL."""

    version: int
    """The version that was pinned."""

    json: bool = False
    """Print one JSON object as the last line."""


def run(argv: Sequence[str]) -> int:
    action, rest = take_action("weights", ACTIONS, argv)
    if action == "ls":
        return _list(parse(ListArguments, rest, "weights ls"))
    if action == "verify":
        return _verify(parse(VerifyArguments, rest, "weights verify"))
    if action == "rollback":
        return _rollback(parse(RollbackArguments, rest, "weights rollback"))
    if action == "pin":
        return _pin(parse(PinArguments, rest, "weights pin"))
    if action == "unpin":
        return _unpin(parse(UnpinArguments, rest, "weights unpin"))
    if action == "bundle":
        return run_bundle(rest)
    return run_import(rest) if action == "import" else run_export(rest)


def _list(arguments: ListArguments) -> int:
    root = as_store_url(arguments.store)
    publications, current, pinned = list_publications(root), current_version(root), pinned_versions(root)
    table = Table(box=None, pad_edge=False)
    for column in ("version", "learner step", "made", "MB", "base", "normalisation", "note"):
        table.add_column(column, justify="right" if column in ("version", "learner step", "MB") else "left")
    for publication in publications:
        notes = ["robots act with it"] if publication.version == current else []
        if publication.restores is not None:
            notes.append(f"brings back {publication.restores}")
        if publication.version in pinned:
            notes.append("pinned")
        if publication.conditioning is not None and publication.conditioning.suffix:
            notes.append(f"told {publication.conditioning.describe()}")
        table.add_row(
            str(publication.version),
            str(publication.learner_step),
            _made(publication),
            f"{_num_bytes(publication) / 1e6:.2f}",
            publication.base_fingerprint,
            publication.norm_fingerprint,
            ", ".join(notes),
        )
    console.print(table)
    say(f"{len(publications)} publications; robots act with {'none of them' if current is None else current}")
    if arguments.json:
        print_json(
            {
                "current": current,
                "pinned": sorted(pinned),
                "publications": [_summary(publication) for publication in publications],
            }
        )
    return 0


def _verify(arguments: VerifyArguments) -> int:
    root = as_store_url(arguments.store)
    versions = (
        [publication.version for publication in list_publications(root)]
        if arguments.version is None
        else [arguments.version]
    )
    problems: dict[int, str] = {}
    for version in versions:
        try:
            verify(root, version)
        except InvalidPublicationError as error:
            problems[version] = str(error)
        say(f"version {version}: {problems.get(version, 'whole')}")
    say(f"{len(versions)} publications read, {len(problems)} bad")
    if arguments.json:
        print_json({"num_publications": len(versions), "problems": problems})
    return 1 if problems else 0


def _rollback(arguments: RollbackArguments) -> int:
    publication = rollback(as_store_url(arguments.store), arguments.version, WallClock())
    say(f"version {publication.version} brings back the weights of version {publication.restores}")
    if arguments.json:
        print_json(_summary(publication))
    return 0


def _pin(arguments: PinArguments) -> int:
    pin(as_store_url(arguments.store), arguments.version)
    return _tell_pins(arguments.store, f"version {arguments.version} stays until it is unpinned", arguments.json)


def _unpin(arguments: UnpinArguments) -> int:
    root = as_store_url(arguments.store)
    was = arguments.version in pinned_versions(root)
    unpin(root, arguments.version)
    told = f"version {arguments.version} " + ("may go like any other now" if was else "wasn't pinned")
    return _tell_pins(arguments.store, told, arguments.json)


def _tell_pins(store: str, told: str, json: bool) -> int:
    say(told)
    if json:
        print_json({"pinned": sorted(pinned_versions(as_store_url(store)))})
    return 0


def _summary(publication: Publication) -> dict:
    return {**dataclasses.asdict(dataclasses.replace(publication, files={})), "num_bytes": _num_bytes(publication)}


def _num_bytes(publication: Publication) -> int:
    return sum(size for size, _ in publication.files.values())


def _made(publication: Publication) -> str:
    return datetime.datetime.fromtimestamp(publication.created_ns / 1e9, tz=datetime.UTC).isoformat(timespec="seconds")
