"""A fleet that works for long keeps its store and its tables small."""

import pathlib

from fleet_sim.config import SimulatedFleetConfig, Stage, TimingConfig
from fleet_sim.fleet import SimulatedFleet
from fleet_sim.replayed import Recordings
from sop_jax.algorithms.hg_dagger import HgDaggerConfig
from sop_jax.algorithms.registry import create_algorithm
from sop_jax.episodes.retention import RetentionConfig
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode
from sop_jax.models.bundle import load_bundle

POLICY = pathlib.Path(__file__).parents[2] / "assets" / "policies" / "restock_compact"


def test_retention_bounds_store_and_tables_in_virtual_time(tmp_path):
    episode = make_episode(0, 60, image_stride=30, image_size=8)
    config = SimulatedFleetConfig({"restock_shelf": 3}, HgDaggerConfig(), timing=TimingConfig(reset_s=2.0))
    fleet = SimulatedFleet(
        config, load_bundle(POLICY), POLICY, create_algorithm(config.algorithm), tmp_path, 1,
        recordings=Recordings([episode]),
    )  # fmt: skip
    store = EpisodeStore(f"file://{tmp_path}/store/")
    kept, sizes, records = [], [], []

    def look(time_s):
        kept.append(len(store.list_paths()))
        sizes.append(sum(fleet.table_sizes().values()))
        records.append(sum(path.is_file() for path in (tmp_path / "store" / "retired").rglob("*")))

    try:
        fleet.keep_store_small(RetentionConfig(max_bytes=0, min_age_s=8.0, grace_s=4.0, keep_record_s=6.0), 4.0)
        fleet.at([20.0, 30.0, 60.0, 90.0], look)
        fleet.run(Stage(91.0))
        num_episodes = len(fleet.journal().episodes)
    finally:
        fleet.close()
    assert num_episodes > 60
    # Three robots end an episode every 4 s; one is retired at 8 to 12 s of age, and its object goes at most 8 s later.
    assert max(kept) <= 3 * (20 // 4 + 1)
    assert min(kept) >= 3 * 2
    per_episode = sizes[-1] / kept[-1]
    assert max(sizes) <= 3 * (12 // 4 + 1) * max(1.0, per_episode)
    assert max(records) <= 3 * (4 + 10 + 8) // 4 + 6
