"""Workers play side by side as soon as robots have begun, however slowly each of them plays."""

import pathlib
import threading

import pytest
import simpy

from fleet_sim import crew as crew_module
from fleet_sim.config import Operation, TimingConfig
from fleet_sim.crew import Crew, EpisodeOrder, Helps, PlayedEpisode, is_told
from fleet_sim.deployed import make_surroundings
from fleet_sim.deployment import Deployment, Robots

NUM_ROBOTS, NUM_FRAMES = 4, 90
GATE_TICK = 12
"""The last robot begins after 9 ticks of the first one's, whose worker must have told by then that it goes on after 10."""

LONG_S = 60.0


class GatedWorker:
    """Tells what a real one tells, and plays no further than GATE_TICK before all have come there."""

    def __init__(self, gate):
        self._gate = gate

    def play(self, playing):
        for tick in range(NUM_FRAMES):
            if tick == GATE_TICK:
                self._gate.wait()
            if is_told(tick):
                playing.note(tick, Helps())
        playing.finish(PlayedEpisode(NUM_FRAMES, pathlib.Path("none"), True))

    def wait_until_there(self):
        return True

    def kill(self):
        self._gate.abort()


@pytest.mark.parametrize("operation", [None, Operation(Deployment(Robots(NUM_ROBOTS)))], ids=["fixed", "deployed"])
def test_all_workers_play_before_any_has_come_far(operation, monkeypatch):
    gate = threading.Barrier(NUM_ROBOTS, timeout=LONG_S)
    workers = [GatedWorker(gate) for _ in range(NUM_ROBOTS)]
    monkeypatch.setattr(crew_module, "_make_workers", lambda settings, num_workers, engine: workers)
    environment, ends_s = simpy.Environment(), {}
    around = make_surroundings(environment, TimingConfig(), operation, seed=0)

    def work(robot, crew):
        yield environment.timeout(robot / 10)
        order = EpisodeOrder(f"robot-{robot}.{0:020d}.000000", f"robot-{robot}", "restock_shelf", robot, 0, 0)
        yield from around.live(robot, crew.play(order))
        ends_s[robot] = environment.now

    with Crew({}, NUM_ROBOTS) as crew:
        for robot in range(NUM_ROBOTS):
            environment.process(work(robot, crew))
        environment.run(until=10.0)
        assert not gate.broken
    assert ends_s == {robot: pytest.approx(robot / 10 + 3.0) for robot in range(NUM_ROBOTS)}
