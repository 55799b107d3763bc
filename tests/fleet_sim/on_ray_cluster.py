"""Runs the fleet of `test_fleet` on a simulated Ray cluster whose machines die and are replaced in the middle.

    python on_ray_cluster.py FOLDER        # FOLDER/store holds the demonstrations; prints JSON

A program of its own, for Ray leaves sockets and files to the end of its process.
"""

import json
import pathlib
import sys

import ray
import test_fleet
from ray.cluster_utils import Cluster

from fleet_sim import ray_worker
from fleet_sim.config import Stage
from fleet_sim.crew import Engine, WorkerLostError
from fleet_sim.fleet import SimulatedFleet
from sop_jax.algorithms.registry import create_algorithm
from sop_jax.models.bundle import load_bundle


def main(root):
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    machines = [cluster.add_node(num_cpus=1) for _ in range(2)]
    losses, deaths = [], []
    play = ray_worker.RayWorker.play

    def count_losses(worker, playing):
        try:
            play(worker, playing)
        except WorkerLostError:
            losses.append(worker)
            raise

    ray_worker.RayWorker.play = count_losses

    def on_progress(progress):
        if progress.num_episodes == 2 and not deaths:
            deaths.append(progress.virtual_s)
            cluster.add_node(num_cpus=2)
            for machine in machines:
                cluster.remove_node(machine, allow_graceful=False)

    config = test_fleet.CONFIG
    fleet = SimulatedFleet(
        config, load_bundle(test_fleet.POLICY), test_fleet.POLICY, create_algorithm(config.algorithm), root, 2,
        on_progress=on_progress, engine=Engine("ray", cluster.address),
    )  # fmt: skip
    fleet.run(Stage(20.0, learner_steps=100))
    journal = repr(fleet.journal())
    fleet.close()
    ray.shutdown()
    cluster.shutdown()
    print(json.dumps({"journal": journal, "losses": len(losses), "deaths": deaths}))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
