"""`sop learn` as a process: told to go, it leaves a checkpoint from which it goes on."""

import dataclasses
import itertools
import json
import pathlib
import signal
import time

import jax
import numpy as np
import pytest
from small_learner import SMALL, command, make_folder, start_process

from configs.experiment import DemoConfig
from configs.files import from_json, to_json
from configs.registry import DEMOS
from sop_jax.algorithms.algorithm import Phase
from sop_jax.algorithms.behaviour_cloning import BehaviourCloningConfig
from sop_jax.algorithms.hg_dagger import HgDagger, HgDaggerConfig
from sop_jax.algorithms.recap.recap import RecapConfig
from sop_jax.algorithms.registry import create_algorithm
from sop_jax.cli import assembly
from sop_jax.cli.assembly import draws_seed, make_loader, share_of_host, wait_to_begin
from sop_jax.cli.learn import PREEMPTED
from sop_jax.cli.main import main
from sop_jax.models.bundle import PolicyBundle, load_bundle
from sop_jax.models.registry import create_model
from sop_jax.replay.local_tables import LocalTables
from sop_jax.replay.tables import TableConfig
from sop_jax.sampling.beginning import MAX_WAIT_S, Beginning
from sop_jax.sampling.loader import LoaderConfig
from sop_jax.specs.clock import ManualClock
from sop_jax.specs.errors import ConfigError, ReplayUnavailableError
from sop_jax.specs.interfaces import Item, TableInfo
from sop_jax.specs.metrics import MemoryMetrics, NoMetrics
from sop_jax.weights.management import list_publications


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """A store with two fake demonstrations, a small policy, and a config for both."""
    return make_folder(tmp_path_factory.mktemp("learn"))


def test_a_preempted_learner_goes_on_where_it_was(folder, capsys, monkeypatch):
    process = start_process(folder)
    log = folder / "metrics" / "learner.jsonl"
    deadline = time.monotonic() + 120
    try:
        while not (log.exists() and '"learner_step"' in log.read_text()):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, "no learner step within two minutes"
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == PREEMPTED == 143, output
    stopped = json.loads(output.strip().splitlines()[-1])
    assert stopped["step"] > 0
    saved = [int(path.name) for path in (folder / "checkpoints").iterdir() if path.is_dir()]
    assert sorted(saved) == [0, stopped["step"]]

    seeds = []
    monkeypatch.setattr(
        "sop_jax.cli.assembly.LocalTables",
        lambda tables, seed, clock: seeds.append(seed) or LocalTables(tables, seed, clock),
    )
    expected = draws_seed(DEMOS["restock_tiny"].seed, folder / "checkpoints")
    assert expected != DEMOS["restock_tiny"].seed
    assert main([*command(folder), "--steps", str(stopped["step"] + 3)]) == 0
    assert seeds == [expected]  # it draws on, not the same once more
    went_on = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert (went_on["step"], went_on["num_steps"]) == (stopped["step"] + 3, 3)


def test_a_server_that_never_answers_holds_the_learner_up_for_a_bounded_time():
    class Away(LocalTables):
        def info(self, timeout_s=1.0):
            raise ReplayUnavailableError("nobody listens")

    clock = ManualClock()
    tables = Away([TableConfig("t", 10)], 0, clock)
    assert wait_to_begin(tables, Beginning(HgDagger(), ["restock_shelf"], 1, clock), clock, NoMetrics(), lambda: False)
    assert clock.now_ns() == MAX_WAIT_S * 1e9  # then it says "starved", and why
    assert not wait_to_begin(
        tables, Beginning(HgDagger(), ["restock_shelf"], 1, clock), clock, NoMetrics(), lambda: True
    )


@pytest.mark.parametrize("algorithm", [BehaviourCloningConfig(), HgDaggerConfig(), RecapConfig()])
def test_a_learner_with_tables_of_its_own_waits_for_nobody(folder, tmp_path, algorithm, monkeypatch, capsys):
    config = from_json(DemoConfig, json.loads((folder / "config.json").read_text()))
    learning = dataclasses.replace(config.learning, algorithm=algorithm, min_online_items=1)
    (tmp_path / "config.json").write_text(json.dumps(to_json(dataclasses.replace(config, learning=learning))))
    begun = []
    monkeypatch.setattr(
        "sop_jax.cli.learn.wait_to_begin",
        lambda tables, beginning, *rest: begun.append(beginning.has_come(tables.info())),
    )
    words = [
        "learn",
        "--store",
        f"file://{folder}/store/",
        "--replay",
        "local",
        "--publish-to",
        str(tmp_path / "weights"),
    ]
    assert main([*words, "--config", str(tmp_path / "config.json"), "--steps", "1"]) == 0
    assert begun == [True]
    assert "learner ready at step 0\n" in capsys.readouterr().err
    (publication,) = list_publications(tmp_path / "weights")
    assert publication.conditioning == create_algorithm(algorithm).conditioning(Phase.EVALUATING)


def test_checkpoints_that_knew_other_tasks_are_refused_in_words(folder, tmp_path, capsys):
    words = [*command(folder), "--checkpoints", str(tmp_path / "c"), "--publish-to", str(tmp_path / "weights")]
    assert main([*words, "--steps", "1"]) == 0, capsys.readouterr().err
    config = from_json(DemoConfig, json.loads((folder / "config.json").read_text()))
    two = dataclasses.replace(config, tasks=(config.world.task, "laundry_fold"))
    (tmp_path / "config.json").write_text(json.dumps(to_json(two)))
    capsys.readouterr()
    assert main([*words, "--steps", "2", "--config", str(tmp_path / "config.json")]) == 2
    assert "resume with the tasks that the run was started with" in capsys.readouterr().err


def test_checkpoints_of_another_base_policy_are_not_published_as_this_ones(folder, tmp_path, capsys):
    words = [
        *command(folder),
        "--checkpoints",
        str(tmp_path / "checkpoints"),
        "--publish-to",
        str(tmp_path / "weights"),
    ]
    assert main([*words, "--steps", "1"]) == 0, capsys.readouterr().err
    policy = load_bundle(folder / "policy")
    params = create_model(SMALL).init_params(jax.random.key(1))
    PolicyBundle(SMALL, params, policy.norm).save(tmp_path / "policy")
    capsys.readouterr()
    assert main([*words, "--steps", "2", "--policy", str(tmp_path / "policy")]) == 2
    assert f"belong to another training: base policy {policy.fingerprint}, now it is" in capsys.readouterr().err


def test_tables_in_a_process_draw_anew_on_every_host_and_after_every_resume(tmp_path, monkeypatch):
    def num_in_common(one: int, other: int) -> int:
        drawn = []
        for seed in (one, other):
            tables = LocalTables([TableConfig("t", 1000)], seed)
            tables.insert("t", [Item(key, {"x": np.zeros(1)}) for key in range(1, 1001)])
            drawn.append([item.key for item in tables.sample("t", 100)])
        return sum(a == b for a, b in zip(*drawn, strict=True))

    checkpoints = tmp_path / "checkpoints"
    seeds = [draws_seed(7, None), draws_seed(7, checkpoints)]
    assert seeds == [7, 7]  # a first start on one host draws as the seed says
    assert not checkpoints.exists()
    for step in ("500", "1000"):
        (checkpoints / step).mkdir(parents=True)
        (checkpoints / "1500.orbax-checkpoint-tmp").mkdir(exist_ok=True)
        seeds.append(draws_seed(7, checkpoints))
        assert draws_seed(7, checkpoints) == seeds[-1]
    monkeypatch.setattr("jax.process_index", lambda: 1)
    seeds += [draws_seed(7, None), draws_seed(7, checkpoints)]
    assert len(set(seeds)) == 5
    assert draws_seed(8, None) not in seeds
    assert num_in_common(seeds[0], seeds[1]) == 100
    assert max(num_in_common(one, other) for one, other in itertools.combinations(seeds[1:], 2)) < 10


def test_a_learner_tells_what_it_waits_for_before_it_begins():
    """Without a word of it, one that waits for ever looks like one that has nothing to say."""
    metrics, clock, name = MemoryMetrics(), ManualClock(), "restock_shelf/online"

    class Tables:
        sizes = iter((None, None, 1, 1, 4))  # a server that doesn't answer at first

        def info(self, timeout_s):
            if (size := next(self.sizes)) is None:
                raise ReplayUnavailableError("away")
            return {name: TableInfo(name, size, 100, size, 0)}

    beginning = Beginning(HgDagger(), ["restock_shelf"], 3, clock)
    assert wait_to_begin(Tables(), beginning, clock, metrics, lambda: False)
    assert metrics.events == [{"event": "awaits_items", "missing": missing} for missing in (3, 2, 0)]
    assert not wait_to_begin(Tables(), beginning, clock, metrics, lambda: True)


def test_hosts_load_different_examples_of_one_batch():
    whole = LoaderConfig(batch_size=12, seed=3)
    assert share_of_host(whole, 0, 1) == whole
    shares = [share_of_host(whole, i, 3) for i in range(3)]
    assert [share.batch_size for share in shares] == [4, 4, 4]
    assert len({share.seed for share in shares}) == 3
    assert shares == [share_of_host(whole, i, 3) for i in range(3)]
    assert share_of_host(dataclasses.replace(whole, seed=4), 0, 3).seed != shares[0].seed
    with pytest.raises(ConfigError, match="multiple of the 5 hosts, got 12"):
        share_of_host(whole, 0, 5)


def test_a_host_without_its_number_is_refused(folder, capsys):
    assert main([*command(folder), "--coordinator", "localhost:1", "--num-processes", "2"]) == 2
    assert "process_id in [0, num_processes), got 2 and None" in capsys.readouterr().err


def test_the_config_says_at_which_rate_the_policy_is_played(monkeypatch):
    made = []
    monkeypatch.setattr(assembly, "Loader", lambda config, spec, *rest: made.append(spec))
    demo = DEMOS["restock_tiny"]
    for learning in (demo.learning, dataclasses.replace(demo.learning, control_hz=50.0)):
        make_loader(learning, demo.worlds, create_model(SMALL), None, None, None, ManualClock(), NoMetrics())
    assert [spec.control_hz for spec in made] == [30.0, 50.0]
    with pytest.raises(ConfigError, match="control_hz must be positive"):
        dataclasses.replace(demo.learning, control_hz=0.0)
