"""`sop replay`: the Reverb server, and the intake that fills it from the store."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Sequence

from configs.registry import find_demo
from sop_jax.algorithms.algorithm import make_labeler
from sop_jax.algorithms.registry import AlgorithmConfig, check_ready, create_algorithm
from sop_jax.cli.arguments import parse
from sop_jax.cli.locations import as_store_url, find_policy
from sop_jax.cli.output import note, print_json, say
from sop_jax.cli.station_metrics import open_metrics
from sop_jax.cli.stopping import StopRequests
from sop_jax.episodes.store import EpisodeStore
from sop_jax.models.bundle import load_bundle
from sop_jax.monitoring.prometheus import LOOPBACK
from sop_jax.replay.intake import Intake
from sop_jax.replay.intake_log import IntakeReport
from sop_jax.replay.reverb_tables import ReverbTables
from sop_jax.replay.server import ReverbServer
from sop_jax.replay.tables import mix_tables
from sop_jax.specs.clock import WallClock
from sop_jax.specs.errors import ReplayUnavailableError, SopError
from sop_jax.specs.interfaces import ReplayTables

_ANSWER_S = 5.0
"""How long the server may take to say that it is alive."""
_MAX_SILENT_LOOKS = 3
"""So many times in a row without an answer, and a server that still lives is started again."""


@dataclasses.dataclass(frozen=True)
class ReplayArguments:
    """Serves replay tables and fills them from the store: new episodes are verified, the bad ones set aside with their
    reason. If the server dies, it is started again and its tables are rebuilt from the store. If --config is a file whose
    algorithm is changed meanwhile (another value function or threshold), every item gets its new label. Anybody who reaches
    the port may read and write: keep it on a trusted network."""

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

    metrics_port: int | None = None
    """Serve the metrics for Prometheus at this port; 0 = any free port. Default: not at all."""

    metrics_host: str = LOOPBACK
    """Network interface of that port; the default can be reached from this machine only."""

    log: pathlib.Path | None = None
    """File for the server's own output; default: a temporary one."""

    json: bool = False
    """Print one JSON object as the last line."""


def run(argv: Sequence[str]) -> int:
    arguments = parse(ReplayArguments, argv, "replay")
    config = find_demo(arguments.config)
    horizon = load_bundle(find_policy(arguments.policy or config.policy)).model.horizon
    watch = _AlgorithmWatch(arguments.config, config.learning.algorithm)
    tables_config = mix_tables([world.task for world in config.worlds], config.replay.mix)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopRequests())
        metrics = open_metrics(stack, "replay", arguments.metrics, arguments.metrics_port, arguments.metrics_host)
        server = stack.enter_context(ReverbServer(tables_config, port=arguments.port, log_path=arguments.log))
        say(f"replay serves {', '.join(table.name for table in tables_config)} at {server.address}")
        tables = stack.enter_context(contextlib.closing(ReverbTables(server.address)))
        intake = Intake(
            EpisodeStore(as_store_url(arguments.store)),
            tables,
            make_labeler(watch.algorithm, horizon),
            config.replay.intake,
            WallClock(),
            metrics,
        )

        def look() -> IntakeReport:
            if watch.has_changed():
                intake.relabel(make_labeler(watch.algorithm, horizon))
            return intake.poll(stop)

        _serve(look, server, tables, stop, config.replay.intake.poll_interval_s)
        if arguments.json:
            print_json(intake.total)
    return 0


class _AlgorithmWatch:
    """The algorithm of an experiment whose config file may be edited while replay runs.

    Raises ConfigError at the start if the algorithm lacks what it labels with; later the algorithm before it stays.
    """

    def __init__(self, config: str, algorithm: AlgorithmConfig):
        self.algorithm = create_algorithm(algorithm)
        check_ready(self.algorithm)
        self._config = config
        self._path = pathlib.Path(config)
        self._seen_ns = self._changed_ns()

    def has_changed(self) -> bool:
        """Whether `algorithm` is another than at the last look."""
        changed_ns = self._changed_ns()
        if changed_ns in (self._seen_ns, 0):
            return False
        self._seen_ns = changed_ns
        try:
            algorithm = create_algorithm(find_demo(self._config).learning.algorithm)
            check_ready(algorithm)
        except SopError as error:
            note(f"{self._config} was changed, but labels stay as they are: {error}")
            return False
        if algorithm == self.algorithm:
            return False
        note(f"{self._config} has another algorithm: every item gets its new label")
        self.algorithm = algorithm
        return True

    def _changed_ns(self) -> int:
        """When the file was changed; 0 if there is none (an experiment's name, or a file that is being replaced)."""
        try:
            return self._path.stat().st_mtime_ns
        except FileNotFoundError:
            return 0


def _serve(
    look: Callable[[], IntakeReport],
    server: ReverbServer,
    tables: ReplayTables,
    stop: StopRequests,
    poll_interval_s: float,
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
        report = look()
        if report.changed:
            note(
                f"{report.inserted} episodes in ({report.num_items} items), {report.quarantined} set aside"
                + (f", {report.relabelled} labelled anew" if report.relabelled else "")
                + (", tables rebuilt" if report.rebuilt else "")
            )
        stop.wait(poll_interval_s)
