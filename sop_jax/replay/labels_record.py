"""What labelled the items of a replay server: a record in the store, `replay/labels.json`, that outlives an intake.

A server keeps the columns of a key that it has, so an intake with another labeler would leave old labels where they are;
and roles that may insert may not sample, so it can't see them. One record is enough: of the server that was filled last.
"""

import dataclasses
import json

from sop_jax.episodes import kvstore
from sop_jax.episodes.store import EpisodeStore
from sop_jax.specs.errors import EpisodeNotFoundError, InvalidEpisodeError

RECORD = "replay/labels.json"
MIXED = ""
"""`labels_of` while items are replaced: some have the labels from before."""
_MAX_RECORD_BYTES = 2**12


@dataclasses.dataclass(frozen=True)
class LabelsRecord:
    """state_id: of the server (`ReplayTables.state_id`). labels_of: what labelled its items, by fingerprint."""

    state_id: str
    labels_of: str


def read_labels(store: EpisodeStore) -> LabelsRecord | None:
    """None if there is no record, or none that can be read. Raises whatever the store raises."""
    try:
        raw = json.loads(kvstore.read(store.root, RECORD, _MAX_RECORD_BYTES))
        return LabelsRecord(str(raw["state_id"]), str(raw["labels_of"]))
    except (EpisodeNotFoundError, InvalidEpisodeError, ValueError, KeyError, TypeError, RecursionError):
        return None


def write_labels(store: EpisodeStore, record: LabelsRecord) -> None:
    """Writes it over the one before. Raises whatever the store raises."""
    store.root.write(RECORD, (json.dumps(dataclasses.asdict(record)) + "\n").encode()).result()
