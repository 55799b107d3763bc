"""`sop episodes trace`: one episode's way, from a robot's spool to the first learner step that used it."""

import dataclasses
import datetime
import pathlib

from sop_jax.cli.output import note, print_json, say
from sop_jax.evaluation.event_log import Event, EventReader

_SHOWN = {
    "rollout": ("num_frames", "wall_s", "num_late_ticks"),
    "accepted": ("num_bytes", "num_pending"),
    "upload_failed": ("num_failures", "retry_in_s", "reason"),
    "upload": ("upload_s", "num_failures"),
    "given_up": ("reason",),
    "set_aside": ("reason",),
    "episode_end": ("outcome", "policy_version", "num_interventions"),
    "unlabelled_episode": ("reason",),
    "unreadable_episode": ("reason",),
    "quarantine": ("reason",),
    "episode": ("intake", "num_items", "intake_s", "intake_delay_s"),
    "first_use": ("learner_step",),
    "correction_use": ("learner_step",),
}
"""What is shown of each event; of others, everything."""


@dataclasses.dataclass(frozen=True)
class TraceArguments:
    """Follows one episode through the logs of all stations. Exit code 1 if no station has heard of it."""

    metrics: pathlib.Path
    """Folder with the stations' metrics (JSON lines): that of a run, or one into which those of all machines were copied."""

    episode: str
    """The episode_id."""

    json: bool = False
    """Print one JSON object as the last line."""


def trace(arguments: TraceArguments) -> int:
    reader = EventReader(arguments.metrics)
    events = [event for event in reader.poll() if event.values.get("episode_id") == arguments.episode]
    for event in events:
        moment = datetime.datetime.fromtimestamp(event.time_s, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        say(f"{moment}  {event.process:<12} {event.name:<18} {_values(event)}")
    if not events:
        say(f"no station wrote of {arguments.episode} in {arguments.metrics}/*.jsonl")
    if reader.num_bad_lines:
        note(
            f"{reader.num_bad_lines} lines in {arguments.metrics}/*.jsonl are torn or no events: a process was killed, or "
            "the disk was full, as it wrote them; what they told is missing above"
        )
    if arguments.json:
        told = [
            {"time_s": event.time_s, "process": event.process, "event": event.name, **event.values} for event in events
        ]
        print_json({"episode_id": arguments.episode, "events": told})
    return 0 if events else 1


def _values(event: Event) -> str:
    keys = _SHOWN.get(event.name, tuple(key for key in event.values if key != "episode_id"))
    parts = []
    for key in keys:
        if key not in event.values:
            continue
        value = event.values[key]
        parts.append(f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}")
    return " ".join(parts)
