import subprocess
import sys

import pytest

from sop_jax.cli.main import BAD_INPUT, COMMANDS, main


def test_overview_names_every_command(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for command, summary in COMMANDS.items():
        assert f"  {command} " in text
        assert summary in text
    assert main([]) == BAD_INPUT
    assert main(["--version"]) == 0


@pytest.mark.parametrize(
    "command",
    [
        *sorted(set(COMMANDS) - {"episodes", "fleet", "weights"}),
        "episodes ls",
        "episodes import",
        "fleet plan",
        "weights rollback",
    ],
)
def test_every_command_explains_itself(command, capsys):
    words = command.split()
    if len(words) == 2:
        assert main([words[0], "--help"]) == 0
    assert main([*words, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"usage: sop {command}" in text
    assert "--json" in text
    assert "default" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evl"], "sop: unknown command 'evl', did you mean 'eval'? (see sop --help)"),
        (["eval", "--trals", "3"], "did you mean --trials?"),
        (["eval", "--trials", "many"], "Error parsing --trials: invalid literal for int() with base 10: 'many'"),
        (["eval"], "either --expert or --weights W"),
        (["eval", "--expert", "--trials", "0"], "number of trials must lie in [1, 100000], got 0"),
        (["eval", "--expert", "--seed", "-1"], "evaluation seed must lie in"),
        (["eval", "--weights", "no/such/place"], "neither a policy directory, nor a run, nor a store"),
        (["demo", "--config", "restock_dmo"], "did you mean 'restock_demo'?"),
        (["demo", "--resume", "no/such/run"], "no/such/run is no run"),
        (["demo", "--fleet.num-robots", "0"], "num_robots must be at least 1"),
        (["demo", "--policy", "no/such/policy"], "no/such/policy is no policy"),
        (["pretrain", "--collect-hours", "-1"], "--collect-hours must be above 0"),
        (["pretrain", "--tasks", "restock_shelf", "restock_shelf"], "tasks must be different"),
        (["pretrain", "--collect-hours", "1", "--tasks", "restock_shelv"], "unknown task 'restock_shelv'"),
        (["pretrain", "--model", "compct"], "unknown model 'compct'"),
        (["pretrain", "--output", "/no/such/policy", "--start", "no/such/policy"], "no/such/policy is no policy"),
        (["act", "--robot-id", "r", "--store", "s", "--expert"], "--expert needs --episodes N"),
        (["act", "--robot-id", "r", "--store", "s", "--config", "pi05_8gpo"], "did you mean 'pi05_8gpu'?"),
        (["act", "--robot-id", "r", "--store", "s", "--config", "pi05_8gpu"], "policies/pi05_base is no policy"),
        (
            [
                "act",
                "--robot-id",
                "r",
                "--store",
                "s",
                "--expert",
                "--episodes",
                "1",
                "--spool-gb",
                "2",
                "--ledger",
                "l",
            ],
            "--spool-gb, --ledger would do nothing with --expert",
        ),
        (
            ["replay", "--store", "s", "--at", "h:1", "--port", "9", "--log", "l"],
            "--port, --log would do nothing with --at",
        ),
        (["replay", "--store", "s", "--replay-tls", "d"], "--replay-tls would do nothing without --at"),
        (["replay", "--store", "s", "--tls-folder", "d"], "--tls-folder would do nothing without --tls"),
        (["replay", "--store", "s", "--config", "pi05_8gpu"], "policies/pi05_base is no policy"),
        (["episodes", "list"], "expected one of ls, show, verify, retain, trace, export, import, got 'list'"),
        (["episodes", "show", "--store", "x", "--episode", "zzz"], "malformed"),
        (["weights", "rollback", "--store", "/no/such", "--version", "3"], "there is no publication 3"),
    ],
)
def test_bad_input_is_one_clear_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == BAD_INPUT
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert message in lines[0]
    assert lines[0].startswith("sop")


def test_the_real_program_exits_with_the_code():
    done = subprocess.run(
        [sys.executable, "-m", "sop_jax.cli.main", "nonsense"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (BAD_INPUT, "")
    assert done.stderr == "sop: unknown command 'nonsense' (see sop --help)\n"


def test_starting_up_loads_nothing_heavy():
    code = "import sys, sop_jax.cli.main; print(sorted({'jax', 'mujoco', 'tensorstore', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
