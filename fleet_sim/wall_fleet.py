"""A fleet on wall time: real Reverb, a learner and crowds of replayed robots as processes, over one store.

What comes back is the journal that the fleet on virtual time keeps, made from what the store holds afterwards.
"""

import dataclasses
import json
import pathlib
import subprocess
import sys

from fleet_sim.config import SimulatedFleetConfig
from fleet_sim.crowd import CrowdReport, CrowdSettings
from fleet_sim.journal import EpisodeRecord, Journal, PublicationRecord
from fleet_sim.wall_learner import LearnerReport, LearnerSettings
from sop_jax.episodes.store import EpisodeStore
from sop_jax.replay.server import ReverbServer
from sop_jax.replay.tables import mix_tables
from sop_jax.specs.clock import WallClock
from sop_jax.specs.errors import SopError
from sop_jax.specs.records import EpisodeManifest, Source

_LEAD_S = 3.0
"""From telling everybody when to start until then."""


class WallFleetError(SopError):
    """A process of the fleet died."""


@dataclasses.dataclass(frozen=True)
class WallResult:
    """What happened, in the fleet's own seconds; how late learner and crowd were on this machine."""

    journal: Journal
    learner: LearnerReport
    crowd: CrowdReport


def run_wall(
    config: SimulatedFleetConfig, settings: LearnerSettings, recordings: str, root: pathlib.Path, duration_s: float
) -> WallResult:
    """Runs the fleet for `duration_s` after its learner is warm. Blocks.

    `settings.replay` is filled in here. `recordings`: URL of the store whose episodes the robots live again. The fleet's own
    store holds demonstrations.

    Raises:
        WallFleetError: the learner or the crowd died.
    """
    (task,) = config.tasks
    (root / "logs").mkdir(parents=True, exist_ok=True)
    with ReverbServer(mix_tables(config.tasks, config.mix), log_path=root / "logs" / "reverb.log") as server:
        told = json.dumps(dataclasses.asdict(dataclasses.replace(settings, replay=server.address)))
        with _start("wall_learner", told, root) as learner:
            try:
                assert learner.stdin is not None
                assert learner.stdout is not None
                _read_line("learner", learner, root)
                start_ns = WallClock().now_ns() + round(_LEAD_S * 1e9)
                learner.stdin.write(json.dumps({"start_ns": start_ns, "duration_s": duration_s}) + "\n")
                learner.stdin.flush()
                robot_ids = tuple(config.robot_ids)
                reset_s = config.timing.reset_s
                crowd_settings = CrowdSettings(
                    recordings, settings.store, task, robot_ids,
                    tuple(reset_s * number / len(robot_ids) for number in range(len(robot_ids))),
                    start_ns, duration_s, reset_s, config.seed,
                )  # fmt: skip
                with _start("crowd", json.dumps(dataclasses.asdict(crowd_settings)), root) as crowd:
                    try:
                        crowd_report = CrowdReport(**json.loads(_read_line("crowd", crowd, root)))
                    finally:
                        crowd.kill()
                learner_report = LearnerReport.from_json(_read_line("learner", learner, root))
            finally:
                learner.kill()
    journal = _journal(config, settings, learner_report, start_ns, duration_s)
    return WallResult(journal, learner_report, crowd_report)


def _start(module: str, settings: str, root: pathlib.Path) -> "subprocess.Popen[str]":
    with (root / "logs" / f"{module}.log").open("w", encoding="utf-8") as log:
        return subprocess.Popen(
            [sys.executable, "-m", f"fleet_sim.{module}", settings],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1,
        )  # fmt: skip


def _read_line(who: str, process: "subprocess.Popen[str]", root: pathlib.Path) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.endswith("\n"):
        code = process.wait()
        raise WallFleetError(f"the {who} of the wall-clock fleet died with exit code {code}: see {root / 'logs'}")
    return line


def _journal(
    config: SimulatedFleetConfig, settings: LearnerSettings, learner: LearnerReport, start_ns: int, duration_s: float
) -> Journal:
    warm = PublicationRecord(1, settings.warm_steps, 0.0)
    publications = (warm, *(PublicationRecord(*made) for made in learner.publications))
    found = (summary.manifest for summary in EpisodeStore(settings.store).summaries())
    manifests = [manifest for manifest in found if manifest is not None and manifest.source is Source.ONLINE]
    return Journal(
        episodes=tuple(
            _record(manifest, publications, start_ns) for manifest in sorted(manifests, key=lambda one: one.ended_ns)
        ),
        publications=publications,
        learner_steps=learner.num_steps,
        last_version=publications[-1].version,
        duration_s=duration_s,
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
