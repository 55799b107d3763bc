"""`sop replay`: the Reverb server, and the intake that fills it from the store."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Sequence

from configs.registry import find_demo
from sop_jax.algorithms.registry import create_algorithm
from sop_jax.cli.arguments import parse
from sop_jax.cli.output import note, print_json, say
from sop_jax.cli.run_directory import as_store_url, find_policy
from sop_jax.cli.stopping import StopRequests
from sop_jax.episodes.store import EpisodeStore
from sop_jax.models.bundle import load_bundle
from sop_jax.replay.intake import Intake
from sop_jax.replay.reverb_tables import ReverbTables
from sop_jax.replay.server import ReverbServer
from sop_jax.replay.tables import mix_tables
from sop_jax.specs.clock import WallClock
from sop_jax.specs.errors import ReplayUnavailableError
from sop_jax.specs.interfaces import Metrics, ReplayTables
from sop_jax.specs.metrics import JsonlMetrics, NoMetrics

_ANSWER_S = 5.0
"""How long the server may take to say that it is alive."""
_MAX_SILENT_LOOKS = 3
"""So many times in a row without an answer, and a server that still lives is started again."""


@dataclasses.dataclass(frozen=True)
class ReplayArguments:
    """Serves replay tables and fills them from the store: new episodes are verified, the bad ones set aside with their
    reason. If the server dies, it is started again and its tables are rebuilt from the store. Anybody who reaches the port
    may read and write: keep it on a trusted network."""

    store: str
    """Store root: a folder, or a URL (file://, gs://, s3://)."""

    port: int = 0
    """Where to listen; 0 = any free port. It is printed once the server answers."""

    config: str = "restock_demo"
    """An experiment's name, or a run's config.json: tasks, tables, limits, algorithm."""

    policy: str = ""
    """Directory of the base policy, whose horizon decides which frames teach; default: the config's."""

    metrics: pathlib.Path | None = None
    """Folder for intake's metrics (JSON lines); default: none are written."""

    log: pathlib.Path | None = None
    """File for the server's own output; default: a temporary one."""

    json: bool = False
    """Print one JSON object as the last line."""


def run(argv: Sequence[str]) -> int:
    arguments = parse(ReplayArguments, argv, "replay")
    config = find_demo(arguments.config)
    horizon = load_bundle(find_policy(arguments.policy or config.policy)).model.horizon
    algorithm = create_algorithm(config.learning.algorithm)
    tables_config = mix_tables([world.task for world in config.worlds], config.replay.mix)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopRequests())
        metrics: Metrics = NoMetrics()
        if arguments.metrics is not None:
            metrics = stack.enter_context(
                contextlib.closing(JsonlMetrics(arguments.metrics / "replay.jsonl", "replay"))
            )
        server = stack.enter_context(ReverbServer(tables_config, port=arguments.port, log_path=arguments.log))
        say(f"replay serves {', '.join(table.name for table in tables_config)} at {server.address}")
        tables = stack.enter_context(contextlib.closing(ReverbTables(server.address)))
        intake = Intake(
            EpisodeStore(as_store_url(arguments.store)),
            tables,
            lambda manifest, arrays: algorithm.label_frames(manifest, arrays, horizon),
            config.replay.intake,
            WallClock(),
            metrics,
        )
        _serve(intake, server, tables, stop, config.replay.intake.poll_interval_s)
        if arguments.json:
            print_json(intake.total)
    return 0


def _serve(
    intake: Intake, server: ReverbServer, tables: ReplayTables, stop: StopRequests, poll_interval_s: float
) -> None:
    """Lets intake look at the store while the server answers, and starts it again when it doesn't, until asked to stop."""
    num_silent = 0
    while not stop():
        try:
            tables.state_id(_ANSWER_S)
        except ReplayUnavailableError:
            num_silent += 1
            given_up = num_silent >= _MAX_SILENT_LOOKS or not server.is_running
            if given_up and not stop():
                note("the replay server doesn't answer; starting it again")
                server.kill()
                server.start()
                num_silent = 0
            continue
        num_silent = 0
        report = intake.poll(stop)
        if report.changed:
            note(
                f"{report.inserted} episodes in ({report.num_items} items), {report.quarantined} set aside"
                + (", tables rebuilt" if report.rebuilt else "")
            )
        stop.wait(poll_interval_s)
