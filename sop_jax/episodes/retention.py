"""Which episodes a store keeps: by size and age, for each task and source; corrections longer than the rest."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping

from sop_jax.episodes import retirement
from sop_jax.episodes.retirement import NotRetiredError, RetirementRecord
from sop_jax.episodes.store import EpisodeStore, EpisodeSummary
from sop_jax.specs.clock import Clock, age_s
from sop_jax.specs.errors import ConfigError, InvalidEpisodeError
from sop_jax.specs.records import NO_POLICY, EpisodeManifest, Source


@dataclasses.dataclass(frozen=True)
class RetentionConfig:
    """What to keep of each task and source. Ages count from the episode's end, by the robot's clock.

    The age of an episode that was recorded by a clock without a date is unknown (`specs.clock.age_s`): all demonstrations
    that `sop act --expert` collects, and what a robot records before it has heard of the time. Such episodes never go for
    their age, and for size only when nothing else of their task and source is left to go.

    max_bytes: the oldest episodes beyond this size go; autonomous ones first, corrections last. None = any size.
    max_age_s: older autonomous episodes go. None = any age.
    correction_factor: episodes with interventions, and demonstrations, may be so many times as old.
    min_age_s: nothing that is known to be younger goes, however full the store is.
    grace_s: from retirement to the removal of the object. Must be longer than intake and learner need to let go.
    keep_record_s: how long the record outlives the object: no robot comes back with an old upload after that.
    """

    max_bytes: int | None = None
    max_age_s: float | None = None
    correction_factor: float = 4.0
    min_age_s: float = 3600.0
    grace_s: float = 3600.0
    keep_record_s: float = 30 * 86400.0

    def __post_init__(self) -> None:
        if self.max_bytes is not None and self.max_bytes < 0:
            raise ConfigError(f"RetentionConfig.max_bytes must be >= 0 or None, got {self.max_bytes}")
        if self.max_age_s is not None and not self.max_age_s > 0:
            raise ConfigError(f"RetentionConfig.max_age_s must be positive or None, got {self.max_age_s}")
        if not self.correction_factor >= 1:
            raise ConfigError(f"RetentionConfig.correction_factor must be at least 1, got {self.correction_factor}")
        for name in ("min_age_s", "grace_s", "keep_record_s"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"RetentionConfig.{name} must be >= 0, got {getattr(self, name)}")


@dataclasses.dataclass(frozen=True)
class RetentionPlan:
    """What the store needs now.

    retire: records to write, oldest first of each group. remove: objects whose grace has passed. forget: records that have
    done their work. damaged: what is wrong with records that can't be read.
    """

    retire: tuple[RetirementRecord, ...]
    remove: tuple[str, ...]
    forget: tuple[str, ...]
    damaged: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Kept:
    path: str
    num_bytes: int
    manifest: EpisodeManifest
    age_s: float | None

    @property
    def corrected(self) -> bool:
        return self.manifest.num_interventions > 0 or self.manifest.policy_version == NO_POLICY

    @property
    def worth(self) -> tuple[bool, bool, int, str]:
        # Without a date the end says how long an episode was, and the shortest must not go first: there the names decide.
        ended_ns = 0 if self.age_s is None else self.manifest.ended_ns
        return self.age_s is None, self.corrected, ended_ns, self.manifest.episode_id


def plan_retention(
    summaries: Iterable[EpisodeSummary],
    records: Mapping[str, RetirementRecord],
    quarantined: Collection[str],
    now_ns: int,
    config: RetentionConfig,
) -> RetentionPlan:
    """Decides, and changes nothing.

    Args:
        summaries: All episodes in the store. Those that can't be read, or are set aside, are left alone.
        records: Path -> record, of the episodes that are on their way out already.
        quarantined: Paths that are set aside.
        now_ns: Wall time.
    """
    groups: dict[tuple[str, Source], list[_Kept]] = {}
    present = set()
    for summary in summaries:
        present.add(summary.path)
        if summary.manifest is None or summary.path in records or summary.path in quarantined:
            continue
        key = (summary.manifest.task, summary.manifest.source)
        age = age_s(summary.manifest.ended_ns, now_ns)
        groups.setdefault(key, []).append(_Kept(summary.path, summary.size, summary.manifest, age))
    retire = [record for kept in groups.values() for record in _overdue(kept, now_ns, config)]
    gone_ns = round((config.grace_s + config.keep_record_s) * 1e9)
    remove, forget = [], []
    for path, record in records.items():
        retired_for_ns = now_ns - record.retired_ns
        if path in present and retired_for_ns >= config.grace_s * 1e9:
            remove.append(path)
        elif path not in present and retired_for_ns >= gone_ns:
            forget.append(path)
    return RetentionPlan(tuple(retire), tuple(remove), tuple(forget))


def _overdue(kept: list[_Kept], now_ns: int, config: RetentionConfig) -> list[RetirementRecord]:
    """Records for what must go of one task and source."""
    total = sum(episode.num_bytes for episode in kept)
    found = []
    for episode in sorted(kept, key=lambda episode: episode.worth):
        age = episode.age_s
        if age is not None and age < config.min_age_s:
            continue
        longest_s = (config.max_age_s or 0.0) * (config.correction_factor if episode.corrected else 1.0)
        if config.max_age_s is not None and age is not None and age > longest_s:
            reason = f"{age:.0f} s old, kept for {longest_s:.0f} s"
        elif config.max_bytes is not None and total > config.max_bytes:
            reason = f"{total} bytes of its task and source, kept are {config.max_bytes}"
            if age is None:
                reason += "; its age is unknown (its clock knew no date), and nothing else of them is left to go"
        else:
            continue
        total -= episode.num_bytes
        manifest = episode.manifest
        found.append(
            RetirementRecord(
                episode.path, manifest.task, manifest.source, manifest.num_frames, episode.num_bytes, reason, now_ns
            )
        )
    return found


def plan_for(store: EpisodeStore, clock: Clock, config: RetentionConfig) -> RetentionPlan:
    """Reads the store and decides; changes nothing. Episodes whose retirement record is damaged are left alone and told."""
    records, damaged = {}, {}
    for path in retirement.retired_paths(store):
        try:
            record = retirement.read_record(store, path)
        except InvalidEpisodeError as error:
            damaged[path] = str(error)
            continue
        if record is not None:
            records[path] = record
    aside = {*store.quarantined(), *damaged}
    plan = plan_retention(store.summaries(), records, aside, clock.now_ns(), config)
    return dataclasses.replace(plan, damaged=tuple(damaged.values()))


def apply_plan(store: EpisodeStore, plan: RetentionPlan) -> list[str]:
    """Carries out a plan. Killed on the way, the next plan goes on from there.

    Returns what was left alone, and why: objects whose retirement was taken back, or whose record broke, since the plan.
    """
    left = []
    for record in plan.retire:
        retirement.retire(store, record)
    for path in plan.remove:
        try:
            retirement.remove_object(store, path)
        except (NotRetiredError, InvalidEpisodeError) as error:  # a store that fails ends the run: the next goes on
            left.append(f"{path} stays: {error}")
    for path in plan.forget:
        retirement.forget(store, path)
    return left
