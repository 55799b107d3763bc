import json

import pytest

from sop_jax.cli.main import BAD_INPUT, main


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
    ],
)
def test_bad_input_is_one_clear_line(words, message, capsys):
    assert main(words) == BAD_INPUT
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
