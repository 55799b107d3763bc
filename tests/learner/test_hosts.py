"""Two hosts with two devices each are one host with four: real processes, real messages."""

import dataclasses
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from host_process import LEARNER, NUM_STEPS, make_learner, report
from linear_policy import CONFIG, make_batches, make_batches_that_end

from sop_jax.learner.hosts import Exchange, decode_rows, encode_rows, join_hosts, stand_in_for
from sop_jax.sampling.batch_source import BatchStarvedError, Draw
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import Source

_DEADLINE_S = 240.0  # on a machine that does much else; alone it takes a tenth of this


@dataclasses.dataclass
class Hosts:
    """Processes with their logs."""

    directory: pathlib.Path
    processes: list[subprocess.Popen]

    def logs(self) -> list[str]:
        return [(self.directory / f"log{i}").read_text() for i in range(len(self.processes))]

    def wait_until(self, condition, what: str) -> None:
        """Fails with both logs if a process has died or the deadline is over."""
        deadline = time.monotonic() + _DEADLINE_S
        while not condition(self):
            died = [process.args[-1] for process in self.processes if process.poll() not in (None, 0)]
            if died or time.monotonic() > deadline:
                tails = "\n".join(f"--- host {i}\n{log[-3000:]}" for i, log in enumerate(self.logs()))
                raise AssertionError(f"{what}: {'died: ' + ', '.join(died) if died else 'no end in sight'}\n{tails}")
            time.sleep(0.05)


def start_hosts(directory: pathlib.Path, num: int) -> Hosts:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    processes = []
    for i in range(num):
        command = [sys.executable, str(pathlib.Path(__file__).with_name("host_process.py")), str(directory)]
        with (directory / f"log{i}").open("w") as log:
            processes.append(
                subprocess.Popen(
                    [*command, coordinator, str(num), str(i)], stdout=log, stderr=subprocess.STDOUT, env=environment
                )
            )
    return Hosts(directory, processes)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    """Two hosts that have trained NUM_STEPS steps and train on."""
    found = start_hosts(tmp_path_factory.mktemp("hosts"), 2)
    try:
        found.wait_until(lambda hosts: all("trained" in log for log in hosts.logs()), "training on two hosts")
        yield found
    finally:
        for process in found.processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """The same training in this process."""
    directory = tmp_path_factory.mktemp("single")
    learner, batches, metrics = make_learner(directory, 0, 1)
    learner.run(NUM_STEPS)
    report(directory, "single", learner, batches, metrics)
    learner.close()
    return directory


def test_two_hosts_learn_what_one_learns(hosts, single):
    expected = np.load(single / "single.npz")
    assert expected["losses"].shape == (NUM_STEPS, LEARNER.batch_size)
    for i in range(2):
        found = np.load(hosts.directory / f"host{i}.npz")
        np.testing.assert_allclose(found["losses"], expected["losses"], rtol=1e-5, atol=1e-7)
        for name in ("encoder", "mlp"):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)
    assert np.abs(expected["mlp"]).max() > 1e-3  # it starts at zero


def test_every_host_knows_the_same(hosts, single):
    """Sampler statistics and first uses cover all hosts' examples; parameters are split over the devices of both."""
    one, two = (json.loads((hosts.directory / f"host{i}.json").read_text()) for i in range(2))
    expected = json.loads((single / "single.json").read_text())
    assert one["shards"] == two["shards"] == expected["shards"] == [[8, 8]]
    assert one["first_use"] == two["first_use"] == expected["first_use"]
    assert len(one["first_use"]) == LEARNER.batch_size // 2
    assert one["sampler"] == two["sampler"]
    losses = [np.array(content["sampler"]["losses"], float) for content in (one, expected)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    assert np.isfinite(losses[0][:, :, :NUM_STEPS]).all()


def test_the_first_host_decides_for_all(hosts, single):
    found = [json.loads((hosts.directory / f"host{i}.json").read_text())["told"] for i in range(2)]
    assert found == [[7, 2], [7, 2]]
    assert json.loads((single / "single.json").read_text())["told"] == [7, 2]


def test_only_the_first_host_publishes(hosts, single):
    one, two = (json.loads((hosts.directory / f"host{i}.json").read_text()) for i in range(2))
    expected = json.loads((single / "single.json").read_text())
    assert (one["published"], two["published"], expected["published"]) == (2, 0, 2)


def test_a_signal_to_one_host_stops_both_after_the_same_step_with_a_checkpoint(hosts, single):
    """It ends the hosts: the tests above need what they have written only."""
    hosts.processes[1].send_signal(signal.SIGTERM)
    hosts.wait_until(lambda hosts: all(process.poll() == 0 for process in hosts.processes), "stopping two hosts")
    found = [re.search(r"stopped after step (\d+), asked by (\S+)", log) for log in hosts.logs()]
    steps = {int(match[1]) for match in found}
    assert len(steps) == 1
    assert [match[2] for match in found] == ["None", "15"] or found[1][2].endswith("SIGTERM")
    (step,) = steps
    assert step > NUM_STEPS
    saved = sorted(int(path.name) for path in (hosts.directory / "checkpoints").iterdir() if path.name.isdigit())
    assert saved[-1] == step

    learner, batches, _ = make_learner(hosts.directory, 0, 1)  # one host takes up what two have left
    assert learner.current_step == step
    assert batches.sampler.state_dict()["step"] == step
    learner.run(step + 1)
    learner.close()
    assert batches.recorded[0].shape == (LEARNER.batch_size,)


def test_rows_tell_other_hosts_everything():
    loaded = make_batches(4).next()
    draws = tuple(
        Draw(task, source) for task, source in zip("ab" * 2, [Source.ONLINE, Source.OFFLINE] * 2, strict=True)
    )
    loaded = dataclasses.replace(loaded, draws=draws, episode_ids=("x" * 97, "", "é", "r.1.2"))
    losses = np.arange(8, dtype=np.float32)
    rows = np.concatenate([encode_rows(loaded, False, False), encode_rows(loaded, True, True)])
    everyone = decode_rows(rows, losses)
    assert everyone.draws == draws
    assert everyone.episode_ids == loaded.episode_ids
    assert everyone.stop
    np.testing.assert_array_equal(everyone.per_example, losses[:4])  # the stand-in's examples are left out
    assert not decode_rows(rows[:4], losses[:4]).stop
    with pytest.raises(ValueError, match="has 101 bytes, at most 100"):
        encode_rows(dataclasses.replace(loaded, episode_ids=("x" * 101,) * 4), False, False)


def test_a_stand_in_teaches_nothing():
    loaded = make_batches(4).next()
    assert stand_in_for(loaded).batch.weight.tolist() == [0, 0, 0, 0]
    assert loaded.batch.weight.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("place", [(None, 0), (2, None), (2, 2), (2, -1)])
def test_hosts_must_know_their_place(place):
    with pytest.raises(ConfigError, match=r"process_id in \[0, num_processes\)"):
        join_hosts("localhost:1", *place)


def test_a_starved_host_that_is_told_to_stop_lets_the_others_finish(make_bench):
    """It gives its last examples without weight; nobody's sampler hears of them, and everybody hears of the stop."""
    batches, given = make_batches(), []
    produce = batches.next

    def two_batches(should_stop):
        if len(given) == 2:
            raise BatchStarvedError("empty")
        given.append(produce())
        return given[-1]

    batches.next = two_batches
    bench = make_bench(dataclasses.replace(CONFIG, num_steps=50), batches=batches)
    bench.learner._exchange = Exchange(bench.learner._mesh)
    summary = bench.learner.run(should_stop=lambda: bench.clock.now_ns() > 2e9)
    assert len(bench.events("starved")) > 1
    assert summary.step == 4  # the stop travels with step 3 and is heard of once step 4 is on its way
    assert [len(draws) for draws, _ in batches.recorded] == [8, 8, 0, 0]
    assert given[1].batch.weight.tolist() == [1] * 8


def test_a_host_that_is_told_to_stop_asks_for_no_more_data(make_bench, tmp_path):
    """`next` may block for two minutes; the machine is taken away after three."""
    batches, asked = make_batches(), []
    produce = batches.next
    batches.next = lambda should_stop: asked.append(1) or produce()
    bench = make_bench(dataclasses.replace(CONFIG, num_steps=50), batches=batches, checkpoint_dir=tmp_path / "c")
    bench.learner._exchange = Exchange(bench.learner._mesh)
    summary = bench.learner.run(should_stop=lambda: len(asked) >= 3)
    assert len(asked) == 3
    assert summary.step == 5  # the stop travels with step 4 and is heard of once step 5 is on its way
    assert [len(draws) for draws, _ in batches.recorded] == [8, 8, 8, 0, 0]
    assert bench.learner._checkpoints.latest_step() == 5


def test_a_host_that_is_told_to_stop_while_it_waits_lets_the_others_finish(make_bench, tmp_path):
    batches, waiting = make_batches_that_end(after=2)
    config = dataclasses.replace(CONFIG, num_steps=50, checkpoint_every=50)
    bench = make_bench(config, batches=batches, checkpoint_dir=tmp_path / "c")
    bench.learner._exchange = Exchange(bench.learner._mesh)
    summary = bench.learner.run(should_stop=lambda: bool(waiting))
    assert summary.step == 4  # the stop travels with step 3 and is heard of once step 4 is on its way
    assert [len(draws) for draws, _ in batches.recorded] == [8, 8, 0, 0]
    assert bench.learner._checkpoints.latest_step() == 4


def test_a_host_that_never_had_data_may_leave(make_bench, monkeypatch, tmp_path):
    batches = make_batches()

    def starved(should_stop):
        raise BatchStarvedError("empty")

    batches.next = starved
    bench = make_bench(batches=batches, checkpoint_dir=tmp_path / "c")
    bench.learner._exchange = Exchange(bench.learner._mesh)

    def save(*arguments):
        raise AssertionError("a checkpoint waits for the other hosts, and they wait for this one's share of a step")

    monkeypatch.setattr(bench.learner._checkpoints, "save", save)
    assert bench.learner.run(should_stop=lambda: bench.clock.now_ns() > 2e9).step == 0
