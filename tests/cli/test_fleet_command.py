import json
import re

import pytest

from fleet_sim import fleet as fleet_module
from sop_jax.cli.main import BAD_INPUT, main
from sop_jax.episodes.store import EpisodeStore
from sop_jax.episodes.synthetic import make_episode
from sop_jax.specs.records import NO_POLICY, Source
from tests.fleet_sim.test_fleet_deployed import CountingLearner


def test_a_plan_in_words_and_as_json(capsys):
    words = [
        "fleet",
        "plan",
        "--robots",
        "200",
        "--link",
        "50Mbps",
        "--episode",
        "60s",
        "--checkpoint",
        "780MB",
        "--json",
    ]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    result = json.loads(lines[-1])
    assert result["bottleneck"] == "operators"
    assert result["figures"]["operator_load"] == pytest.approx(1)
    assert result["figures"]["episodes_per_hour"] == pytest.approx(3600 * 2 / 13)
    assert result["deployment"]["network"]["link_bps"] == 50e6
    assert result["deployment"]["network"]["site_link_bps"] is None
    assert any(line.startswith("operators can't follow (17 times what it can do): more people") for line in lines)
    assert any(line.startswith("publication on robot links can't follow (4.99 times") for line in lines)


def test_what_the_learners_advice_names_helps_the_learner(capsys):
    def learners_load(*options):
        assert main(["fleet", "plan", "--robots", "200", "--operators", "50", *options, "--json"]) == 0
        *lines, last = capsys.readouterr().out.splitlines()
        return {load["name"]: load["load"] for load in json.loads(last)["loads"]}["learner"], lines

    load, lines = learners_load()
    (advice,) = [line for line in lines if line.startswith("learner can't follow (")]
    values = {"--steps-per-s": "2", "--batch": "512", "--online-share": "100%"}
    assert re.findall(r"--[a-z-]+", advice) == list(values)
    for option, value in values.items():
        assert learners_load(option, value)[0] == pytest.approx(load / 2), option
    assert "accelerators" not in advice
    assert learners_load("--accelerators", "64")[0] == load  # they only count the costs


def test_help_tells_both_forms_and_each_has_its_own(capsys):
    assert main(["fleet", "--help"]) == 0
    text = capsys.readouterr().out
    assert "usage: sop fleet plan [OPTIONS]\n" in text
    assert "sop fleet --clock virtual|wall [OPTIONS]\n" in text
    for words, option in ((["plan"], "--site-cache"), (["--clock", "virtual"], "--recordings")):
        assert main(["fleet", *words, "--help"]) == 0
        assert option in capsys.readouterr().out
    assert main(["--help"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  fleet ")]
    assert "(plan)" in line
    assert "(--clock)" in line


def test_a_plan_in_which_nothing_saturates(capsys):
    assert main(["fleet", "plan", "--robots", "2", "--checkpoint", "6MB", "--steps-per-s", "4"]) == 0
    assert "Nothing saturates. The nearest to it: operators at 17%, full at 12 robots." in capsys.readouterr().out


def test_plan_and_simulation_side_by_side(capsys):
    words = ["--robots", "10", "--link", "1Gbps", "--operators", "3", "--checkpoint", "6MB", "--patience", "20s"]
    assert main(["fleet", "plan", *words, "--simulate", "1h", "--rule", "shortest_help", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    result = json.loads(lines[-1])
    simulated = result["simulated"]
    assert simulated["figures"]["episodes_per_hour"] == pytest.approx(result["figures"]["episodes_per_hour"], rel=0.15)
    assert simulated["successes_per_operator_minute"] == pytest.approx(
        simulated["num_successes"] / simulated["help_minutes"]
    )
    assert any(line.startswith(f"{simulated['num_episodes']} episodes: ") for line in lines)
    assert any(line.split()[:1] == ["operator_wait_s"] for line in lines)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fleet"], "expected one of plan"),
        (["fleet", "plan", "--link", "50"], "--link: expected a rate such as 50Mbps"),
        (["fleet", "plan", "--failure-every", "2 weeks"], "--failure-every: expected a duration"),
        (["fleet", "plan", "--robots", "0"], "Robots.num_robots must be at least 1, got 0"),
        (["fleet", "plan", "--simulate", "unlimited"], "0 <= warm_up_s < duration_s"),
        (["fleet", "plan", "--chekpoint", "1MB"], "did you mean --checkpoint?"),
        (["fleet", "plan", "--episode", "unlimited"], "Robots.episode_s must be finite, got inf"),
        (["fleet", "plan", "--steps-per-s", "inf"], "Training.learner_steps_per_s must be finite, got inf"),
        (["fleet", "plan", "--kept-hz", "inf"], "Robots.kept_hz must be finite, got inf"),
        (["fleet", "plan", "--simulate", "10min", "--seed", "-1"], "DynamicsConfig.seed must be >= 0, got -1"),
        (
            ["fleet", "plan", "--rule", "worst_first", "--seed", "2"],
            "--rule, --seed would do nothing without --simulate",
        ),
    ],
)
def test_bad_input_is_one_clear_line(words, message, capsys):
    assert main(words) == BAD_INPUT
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1


@pytest.fixture
def recordings(tmp_path):
    """A store with two recorded episodes and a demonstration."""
    folder = tmp_path / "recorded"
    store = EpisodeStore(f"file://{folder}/")
    for seed in range(2):
        store.put(make_episode(seed, 60, image_stride=30, robot_id="recorded-0", takeovers=((10, 10, 30),)))
    store.put(make_episode(2, 60, robot_id="demonstrator-0", source=Source.OFFLINE, policy_version=NO_POLICY))
    return folder


def test_a_fleet_of_replayed_robots_on_virtual_time(tmp_path, recordings, capsys, monkeypatch):
    monkeypatch.setattr(fleet_module, "LearningSide", CountingLearner)
    command = ["fleet", "--clock", "virtual", "--recordings", str(recordings), "--folder", str(tmp_path / "run"),
               "--robots", "3", "--duration-s", "50", "--reset-s", "8", "--publish-every", "10", "--json"]  # fmt: skip
    assert main(command) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    # Each begins at 0, 8/3 or 16/3 s and needs 2 + 8 s for an episode; each must be in the store, a second later, by 50.
    assert summary["episodes"] == 5 + 5 + 5
    assert summary["robot_hours"] == pytest.approx(150 / 3600)
    assert (summary["clock"], summary["online_share"]) == ("virtual", 0.5)
    assert summary["publications"] >= 4
    assert len(EpisodeStore(f"file://{tmp_path}/run/store/").list_paths()) == 15 + 1
    assert main(command) == 2
    assert "holds a store: choose a new folder" in capsys.readouterr().err


def test_a_fleet_that_learns_in_a_deployment(tmp_path, recordings, capsys, monkeypatch):
    monkeypatch.setattr(fleet_module, "LearningSide", CountingLearner)
    command = ["fleet", "--clock", "virtual", "--recordings", str(recordings), "--folder", str(tmp_path / "run"),
               "--robots", "3", "--duration-s", "50", "--reset-s", "8", "--publish-every", "10", "--json"]  # fmt: skip
    assert main([*command, "--deployment", "link=10Mbps checkpoint=1MB frame=36KB kept-hz=10 site-cache"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["upload_s"] == pytest.approx(0.05 + 2.0 * 10 * 36e3 * 8 / 10e6)  # latency, two seconds of frames
    assert summary["fan_out_s"] == pytest.approx(0.05 + 1e6 * 8 / 10e6)
    assert summary["lost_while_waiting"] == 0
    other = [*command[:-1], "--folder", str(tmp_path / "other")]
    for words, message in (
        (["--deployment", "operators=2 rule=worst_first"], "--operators, --rule would do nothing in --deployment"),
        (["--deployment", "robots=7"], "--deployment can't say --robots: it is this command's own option"),
        (["--deployment", "link=fast"], "--link: expected a rate such as 50Mbps"),
        (["--deployment", "lnk=5Mbps"], "Unrecognized options: --lnk=5Mbps (see sop fleet plan --help)"),
        (["--clock", "wall", "--deployment", "link=5Mbps"], "--deployment is simulated: add --clock virtual"),
    ):
        assert main([*other, *words]) == BAD_INPUT
        assert message in capsys.readouterr().err


def test_a_fleet_needs_demonstrations(tmp_path, capsys):
    EpisodeStore(f"file://{tmp_path}/recorded/").put(make_episode(image_size=8))
    command = [
        "fleet",
        "--clock",
        "wall",
        "--recordings",
        str(tmp_path / "recorded"),
        "--folder",
        str(tmp_path / "run"),
    ]
    assert main(command) == 2
    assert "holds no demonstration of restock_shelf" in capsys.readouterr().err
    assert main([*command, "--robots", "0"]) == 2
    assert "--robots must be at least 1 and --duration-s above 0 and finite, got 0 and 60.0" in capsys.readouterr().err
    for words in (["--pace", "free"], ["--processes", "2"], ["--threads", "2"], ["--individuals", "field"]):
        assert main([*command, *words]) == 2
        assert f"{words[0]} would do nothing without --bodies worlds: leave it out" in capsys.readouterr().err
    command[2] = "virtual"
    assert main([*command, "--bodies", "worlds", "--pace", "free", "--processes", "2", "--individuals", "field"]) == 2
    assert "--pace, --processes would do nothing on virtual time: leave them out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--duration-s", "inf"], "--duration-s above 0 and finite, got 4 and inf"),
        (["--duration-s", "nan"], "--duration-s above 0 and finite, got 4 and nan"),
        (["--duration-s", "0"], "--duration-s above 0 and finite, got 4 and 0.0"),
        (["--bodies", "worlds", "--processes", "0"], "num_processes must be >= 1"),
        (["--bodies", "worlds", "--threads", "-1"], "num_threads >= 0"),
        (["--reset-s", "nan"], "reset_s must be finite"),
        (["--steps-per-s", "0"], "learner_steps_per_s must be positive"),
    ],
)
def test_what_can_not_run_leaves_no_store_behind(words, complaint, tmp_path, recordings, capsys):
    command = ["fleet", "--clock", "wall", "--recordings", str(recordings), "--folder", str(tmp_path / "run")]
    assert main([*command, *words]) == BAD_INPUT
    captured = capsys.readouterr()
    assert complaint in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not (tmp_path / "run").exists()
