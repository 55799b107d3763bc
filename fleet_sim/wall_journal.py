"""The journal of a fleet on wall time, made from what the store holds afterwards."""

from fleet_sim.config import SimulatedFleetConfig
from fleet_sim.journal import EpisodeRecord, Journal, PublicationRecord
from fleet_sim.wall_learner import LearnerReport, LearnerSettings
from fleet_sim.wall_processes import WallOrder
from sop_jax.episodes.store import EpisodeStore
from sop_jax.specs.records import EpisodeManifest, Source


def make_journal(
    config: SimulatedFleetConfig,
    settings: LearnerSettings,
    learner: LearnerReport,
    order: WallOrder,
    robots_pace: float = 1.0,
) -> Journal:
    """In the robots' seconds, of which `robots_pace` pass in a second of the wall clock."""
    warm = PublicationRecord(1, settings.warm_steps, 0.0)
    made = (PublicationRecord(version, step, at_s * robots_pace) for version, step, at_s in learner.publications)
    publications = (warm, *made)
    found = (summary.manifest for summary in EpisodeStore(settings.store).summaries())
    manifests = [manifest for manifest in found if manifest is not None and manifest.source is Source.ONLINE]
    return Journal(
        episodes=tuple(
            _record(manifest, publications, order.start_ns)
            for manifest in sorted(manifests, key=lambda one: one.ended_ns)
        ),
        publications=publications,
        learner_steps=learner.num_steps,
        last_version=publications[-1].version,
        duration_s=order.duration_s * robots_pace,
        num_robots=config.num_robots,
        online_share=learner.online_share,
    )


def _record(manifest: EpisodeManifest, publications: tuple[PublicationRecord, ...], start_ns: int) -> EpisodeRecord:
    started_s, ended_s = ((ns - start_ns) / 1e9 for ns in (manifest.started_ns, manifest.ended_ns))
    middle_s, version = (started_s + ended_s) / 2, manifest.policy_version
    newest = max((made.version for made in publications if made.published_s <= middle_s), default=0)
    age_s = max(0.0, middle_s - publications[version - 1].published_s) if version else 0.0
    human_frames = sum(event.handback_frame - event.takeover_frame for event in manifest.takeovers)
    return EpisodeRecord(
        episode_id=manifest.episode_id,
        robot_id=manifest.robot_id,
        task=manifest.task,
        started_s=started_s,
        ended_s=ended_s,
        version=version,
        outcome=manifest.outcome.value,
        failure_kind=manifest.failure_kind,
        num_takeovers=manifest.num_interventions,
        human_s=human_frames / manifest.control_hz,
        staleness_s=age_s,
        versions_behind=newest - version,
    )
