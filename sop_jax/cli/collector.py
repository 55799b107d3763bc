"""One collector of demonstrations: the scripted expert acts alone, as fast as the machine allows.

`python -m sop_jax.cli.collector SETTINGS NUMBER STORE` is the process that `collection` starts.
"""

import json
import pathlib
import sys

import envs
from configs.experiment import DemonstrationsConfig
from configs.files import from_json
from sop_jax.actors.demonstrate import DemonstrationConfig, DemonstrationReport, collect_demonstrations
from sop_jax.cli.locations import as_store_url
from sop_jax.cli.stopping import StopRequests
from sop_jax.episodes.store import EpisodeStore
from sop_jax.evaluation.world import WorldConfig, make_robot
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.records import Episode


def demonstrate(
    world: WorldConfig,
    config: DemonstrationConfig,
    robot_id: str,
    num_episodes: int | None,
    seed: int,
    store: str,
    robot_s: float = 0.0,
) -> DemonstrationReport:
    """Collects into the store; a signal to stop raises KeyboardInterrupt, Ctrl-C after the present tick, SIGTERM after the
    present episode.

    The clock stands still, which makes the episodes, and so their names and bytes, a function of the arguments alone.
    """
    clock = ManualClock()
    robot = make_robot(world, clock, robot_id)
    episodes = EpisodeStore(as_store_url(store))
    with StopRequests() as stop:

        def accept(episode: Episode) -> None:
            episodes.put(episode)
            if stop():
                raise KeyboardInterrupt

        report = collect_demonstrations(
            robot,
            envs.make_expert(robot.environment),
            num_episodes,
            seed,
            accept,
            clock,
            robot_id=robot_id,
            world=robot.world,
            config=config,
            robot_s=robot_s,
        )
    robot.close()
    if report.interrupted:
        raise KeyboardInterrupt
    return report


def main(settings: pathlib.Path, number: int, store: str) -> None:
    values = json.loads(settings.read_text(encoding="utf-8"))
    config = from_json(DemonstrationsConfig, values["demonstrations"])
    world = from_json(WorldConfig, values["world"])
    demonstrate(
        world, config.collection, config.collectors[number], config.share_of(number), config.seed, store,
        config.robot_s_each,
    )  # fmt: skip


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
