"""`sop replay`: the Reverb server, and the intake that fills it from the store."""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Sequence

from configs.files import to_json
from configs.registry import find_learning
from sop_jax.algorithms.algorithm import make_labeler
from sop_jax.algorithms.registry import AlgorithmConfig, check_ready, create_algorithm
from sop_jax.cli.arguments import parse, refuse_unused
from sop_jax.cli.locations import as_store_url, find_policy
from sop_jax.cli.output import note, print_json, say
from sop_jax.cli.replay_access import open_tables
from sop_jax.cli.replay_service import ReplayService
from sop_jax.cli.station_metrics import open_metrics
from sop_jax.cli.stopping import StopRequests
from sop_jax.episodes.store import EpisodeStore
from sop_jax.models.bundle import told_model
from sop_jax.monitoring.prometheus import LOOPBACK
from sop_jax.replay.intake import Intake
from sop_jax.replay.intake_log import IntakeReport
from sop_jax.replay.reverb_tables import ReverbTables
from sop_jax.replay.tables import mix_tables
from sop_jax.specs.clock import WallClock
from sop_jax.specs.errors import ReplayUnavailableError, SopError
from sop_jax.specs.interfaces import Metrics, ReplayTables

_ANSWER_S = 5.0
"""How long the server may take to say that it is alive."""
_MAX_SILENT_LOOKS = 3
"""So many times in a row without an answer, and a server that still lives is started again."""
_RESTART_PAUSE_S = 5.0


@dataclasses.dataclass(frozen=True)
class ReplayArguments:
    """Serves replay tables and fills them from the store: new episodes are verified, the bad ones set aside with their
    reason. If the server dies, it is started again and its tables are rebuilt from the store. If --config is a file whose
    algorithm is changed meanwhile (another value function or threshold), every item gets its new label; so do items of
    another algorithm or segment length in the tables of a server that runs already (--at). Only this machine
    reaches the tables, unless --tls lets others in by their certificates."""

    store: str
    """Store root: a folder, or a URL (file://, gs://, s3://)."""

    port: int = 0
    """Where to listen; 0 = any free port. It is printed once the server answers."""

    tls: pathlib.Path | None = None
    """Folder with this server's certificate (from launch/tls/ca.sh): ca.crt, tls.crt, tls.key. nginx then answers at --port,
    from everywhere, and asks every client for a certificate of the same CA."""

    tls_folder: pathlib.Path | None = None
    """With --tls: folder for nginx's configuration, its log, and what it refused; default: a temporary one."""

    all_interfaces: bool = False
    """Without --tls: let everybody who reaches the port read and write. For networks that are closed by other means."""

    at: str = ""
    """HOST:PORT of a server that runs already: fill its tables (config and limits are its own) in place of starting one."""

    replay_tls: pathlib.Path | None = None
    """With --at: folder with the certificate to show there (role intake): ca.crt, tls.crt, tls.key; default: $SOP_REPLAY_TLS,
    or no TLS."""

    config: str = "restock_demo"
    """An experiment's name, or a run's config.json: tasks, tables, limits, algorithm."""

    policy: str = ""
    """Directory of the base policy, whose horizon decides which frames teach; default: the config's."""

    owns_store: bool = False
    """This server is the only one that is filled from the store: whole episodes of a task that the config lacks are set aside
    too, with that as their reason. Without it they are told and left to other servers. (sop episodes verify --tasks takes
    back what a lacking config set aside.)"""

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
    if arguments.at:
        refuse_unused(
            arguments, ("port", "tls", "tls_folder", "all_interfaces", "log"), "with --at, which starts no server"
        )
    else:
        refuse_unused(arguments, ("replay_tls",), "without --at")
        if arguments.tls is None:
            refuse_unused(arguments, ("tls_folder",), "without --tls")
    config = find_learning(arguments.config)
    horizon = told_model(find_policy(arguments.policy or config.policy)).horizon
    tasks = [world.task for world in config.worlds]
    watch = _AlgorithmWatch(arguments.config, config.learning.algorithm, tasks)
    tables_config, segment_length = mix_tables(tasks, config.replay.mix), config.replay.intake.segment_length
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopRequests())
        metrics = open_metrics(stack, "replay", arguments.metrics, arguments.metrics_port, arguments.metrics_host)
        service = None if arguments.at else stack.enter_context(ReplayService(arguments, tables_config))
        names = ", ".join(table.name for table in tables_config)
        if service is None:
            tables = open_tables(arguments.at, arguments.replay_tls)
            say(f"replay fills {names} at {arguments.at}")
        else:
            tables = ReverbTables(service.inner_address)
            say(f"replay serves {names} at {service.address}")
        stack.enter_context(contextlib.closing(tables))
        intake = Intake(
            EpisodeStore(as_store_url(arguments.store)),
            tables,
            make_labeler(watch.algorithm, horizon),
            config.replay.intake,
            WallClock(),
            metrics,
            labels_of=watch.labels_of(horizon, segment_length),
            owns_store=arguments.owns_store,
        )

        def look() -> IntakeReport:
            if watch.has_changed():
                intake.relabel(make_labeler(watch.algorithm, horizon), watch.labels_of(horizon, segment_length))
            return intake.look(stop)

        _serve(look, service, tables, stop, config.replay.intake.poll_interval_s, metrics)
        if arguments.json:
            print_json(intake.total)
    return 0


class _AlgorithmWatch:
    """The algorithm of an experiment whose config file may be edited while replay runs.

    Raises ConfigError at the start if the algorithm lacks what it labels with; later the algorithm before it stays.
    """

    def __init__(self, config: str, algorithm: AlgorithmConfig, tasks: Sequence[str]):
        self._algorithm_config = algorithm
        self.algorithm = create_algorithm(algorithm)
        check_ready(self.algorithm, tasks)
        self._tasks = tasks
        self._config = config
        self._path = pathlib.Path(config)
        self._seen_ns = self._changed_ns()

    def labels_of(self, horizon: int, segment_length: int) -> str:
        """16 hex digits that change with the algorithm's config and with how frames are packed."""
        told = json.dumps([to_json(self._algorithm_config), horizon, segment_length], sort_keys=True)
        return hashlib.blake2b(told.encode(), digest_size=8).hexdigest()

    def has_changed(self) -> bool:
        """Whether `algorithm` is another than at the last look."""
        changed_ns = self._changed_ns()
        if changed_ns in (self._seen_ns, 0):
            return False
        self._seen_ns = changed_ns
        try:
            config = find_learning(self._config).learning.algorithm
            algorithm = create_algorithm(config)
            check_ready(algorithm, self._tasks)
        except SopError as error:
            note(f"{self._config} was changed, but labels stay as they are: {error}")
            return False
        if algorithm == self.algorithm:
            return False
        note(f"{self._config} has another algorithm: every item gets its new label")
        self.algorithm, self._algorithm_config = algorithm, config
        return True

    def _changed_ns(self) -> int:
        """When the file was changed; 0 if there is none (an experiment's name, or a file that is being replaced)."""
        try:
            return self._path.stat().st_mtime_ns
        except FileNotFoundError:
            return 0


def _serve(
    look: Callable[[], IntakeReport],
    service: ReplayService | None,
    tables: ReplayTables,
    stop: StopRequests,
    poll_interval_s: float,
    metrics: Metrics,
) -> None:
    """Lets intake look at the store while the server answers, and starts it again when it doesn't, until asked to stop.

    Metrics: "server_silent" (num_looks: so many in a row, reason) whenever it gave no answer.
    """
    num_silent = 0
    while not stop():
        try:
            if service is not None and service.mend_proxy():
                note("nginx has ended; it was started again")
        except ReplayUnavailableError as error:
            note(f"nginx has ended, and did not start again yet: {error}")
        try:
            tables.state_id(_ANSWER_S)
        except ReplayUnavailableError as error:
            num_silent += 1
            metrics.write("server_silent", num_looks=num_silent, reason=str(error)[:300])
            given_up = service is not None and (num_silent >= _MAX_SILENT_LOOKS or not service.is_running)
            if service is not None and given_up and not stop():
                note("the replay server doesn't answer; starting it again")
                num_silent = 0
                try:
                    service.restart()
                except ReplayUnavailableError as error:  # the port is still held, or the machine is busy
                    note(f"it did not start, and will be tried again: {error}")
                    stop.wait(_RESTART_PAUSE_S)
            continue
        num_silent = 0
        report = look()
        if report.changed:
            note(
                f"{report.inserted} episodes in ({report.num_items} items), {report.quarantined} set aside"
                + (f", {report.relabelled} labelled anew" if report.relabelled else "")
                + (", tables rebuilt" if report.rebuilt else "")
            )
        if not report.goes_on:
            stop.wait(poll_interval_s)
