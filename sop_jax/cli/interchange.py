"""`sop episodes export|import`: datasets in other projects' formats. A module apart: a robot's computer has no Parquet."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Literal

from configs.files import from_json, to_json
from sop_jax.cli.arguments import UsageError, parse
from sop_jax.cli.locations import as_store_url
from sop_jax.cli.output import print_json, progress_console, say
from sop_jax.cli.progress import WorkProgress
from sop_jax.episodes.store import EpisodeStore
from sop_jax.interchange.agibot import AGIBOT_WORLD
from sop_jax.interchange.export import ExportConfig, Frames, Pictures, Selection, export_lerobot
from sop_jax.interchange.importing import ImportReport, Translator, import_episodes
from sop_jax.interchange.labels import MANIFEST
from sop_jax.interchange.lerobot.reader import LeRobotSource
from sop_jax.interchange.mapping import ImportMapping, check_mapping, derive_mapping
from sop_jax.interchange.rlds.reader import RldsSource
from sop_jax.interchange.source import EpisodeSource
from sop_jax.interchange.translate import ExportTranslator, MappedTranslator
from sop_jax.interchange.video import VideoConfig
from sop_jax.specs.clock import WallClock
from sop_jax.specs.errors import ConfigError
from sop_jax.specs.records import Outcome, Source

ImportFormat = Literal["lerobot", "agibot", "rlds"]


@dataclasses.dataclass(frozen=True)
class ExportArguments:
    """Writes episodes as a LeRobot dataset (version 3.0). Set-aside and retired ones are left out; damaged ones are told, and
    the exit code is 1.

    Policy version, intervention, outcome and ids become columns, so that `sop episodes import` brings all of it back."""

    store: str
    """Store root: a folder, or a URL (file://, gs://, s3://)."""

    output: pathlib.Path
    """The dataset's folder to make; must not exist or be empty."""

    format: Literal["lerobot"] = "lerobot"
    """The format."""

    task: tuple[str, ...] = ()
    """Only episodes of these tasks."""

    robot: tuple[str, ...] = ()
    """Only episodes of these robots (robot_id)."""

    source: tuple[Literal["online", "offline"], ...] = ()
    """Only online or offline episodes."""

    outcome: tuple[Literal["success", "failure", "timeout", "aborted", "error"], ...] = ()
    """Only episodes that ended so."""

    frames: Frames = "all"
    """all: every control tick, at its rate; each shows the last picture taken, and picture_age tells how old that is.
    pictured: only the ticks that have a picture, at their rate; the actions between are left out."""

    pictures: Pictures = "video"
    """video: mp4, H.264 (lossy, 4:2:0). jpeg: the store's own JPEGs inside the data files, bit for bit."""

    crf: int = 15
    """Quality of the videos: 0 (best) to 51."""

    robot_type: str = "agibot_g1"
    """The robot's type, for info.json."""

    json: bool = False
    """Print one JSON object as the last line."""


@dataclasses.dataclass(frozen=True)
class ImportArguments:
    """Takes a dataset's episodes into a store: exports of this project as they were, others as demonstrations.

    A bad episode is told and left out, the others are imported; exit code 1 if one was bad. Importing again changes nothing.
    """

    path: pathlib.Path
    """The dataset's folder: for lerobot and agibot the one with meta/, for rlds the one with features.json."""

    store: str = ""
    """Store root: a folder, or a URL (file://, gs://, s3://). Needed for all but --print-mapping."""

    format: ImportFormat = "lerobot"
    """lerobot: v2.0, v2.1, v3.0. agibot: AgiBot World in LeRobot's format. rlds: TFDS's TFRecord files."""

    task: str = ""
    """The task whose offline table the demonstrations feed. Exports of this project bring their own."""

    robot: str = ""
    """robot_id under which they are stored; default: the format's name."""

    mapping: pathlib.Path | None = None
    """JSON file that says which features are what; see --print-mapping. Default: the format's own, or what the features'
    names suggest."""

    print_mapping: bool = False
    """Print the mapping as JSON, to be edited and given as --mapping; import nothing."""

    image_size: tuple[int, int] | None = None
    """Bring every camera's pictures to this height and width [pixels]: cropped around the centre to its proportions, then
    scaled."""

    control_hz: float | None = None
    """Frames per second, where the dataset doesn't tell (RLDS)."""

    image_stride: int | None = None
    """Keep pictures of every so many frames (default 3); only such frames can begin a training example."""

    limit: int = 0
    """Only the first so many episodes; 0 = all."""

    dry_run: bool = False
    """Read, convert and check everything; store nothing."""

    json: bool = False
    """Print one JSON object as the last line."""


def run(argv: Sequence[str]) -> int:
    """`argv` begins with export or import."""
    if argv[0] == "export":
        return _export(parse(ExportArguments, argv[1:], "episodes export"))
    return _import(parse(ImportArguments, argv[1:], "episodes import"))


def _export(arguments: ExportArguments) -> int:
    output = arguments.output
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output} is not empty: a dataset needs a folder of its own")
    if "://" not in arguments.store and not pathlib.Path(arguments.store).is_dir():
        raise UsageError(f"--store {arguments.store}: there is no such folder")
    try:
        video = VideoConfig(crf=arguments.crf)
    except ConfigError as error:
        raise UsageError(str(error)) from error
    sources = tuple(Source(name) for name in arguments.source)
    outcomes = tuple(Outcome(name) for name in arguments.outcome)
    selection = Selection(arguments.task, arguments.robot, sources, outcomes)
    config = ExportConfig(arguments.frames, arguments.pictures, arguments.robot_type, video)
    store = EpisodeStore(as_store_url(arguments.store))
    with WorkProgress(progress_console, "episodes exported", 0) as progress:
        report = export_lerobot(store, output, selection, config, progress.update_total)
    for path, reason in report.left_out.items():
        say(f"left out  {path}: {reason}")
    say(f"{report.num_episodes} episodes, {report.num_frames} frames at {report.fps} Hz in {output}")
    if arguments.json:
        print_json({"output": output, **dataclasses.asdict(report)})
    return 1 if report.left_out else 0


def _import(arguments: ImportArguments) -> int:
    source = RldsSource(arguments.path) if arguments.format == "rlds" else LeRobotSource(arguments.path)
    is_own = arguments.format == "lerobot" and arguments.mapping is None and MANIFEST in source.features
    if arguments.print_mapping:
        say(json.dumps(to_json(make_mapping(arguments, source)), indent=1))
        return 0
    if not arguments.store:
        raise UsageError("--store is missing: where shall the episodes go? (see sop episodes import --help)")
    translator = _own_translator(arguments) if is_own else _mapped_translator(arguments, source)
    store = EpisodeStore(as_store_url(arguments.store))
    if arguments.limit < 0:
        raise UsageError(f"--limit must be >= 0 (0 = all), got {arguments.limit}")
    indices = range(min(source.num_episodes, arguments.limit or source.num_episodes))
    with WorkProgress(progress_console, "episodes imported", len(indices)) as progress:
        report = import_episodes(
            source, translator, store, indices=indices, dry_run=arguments.dry_run, progress=progress.update_total
        )
    return _tell(arguments, report)


def make_mapping(arguments: ImportArguments, source: EpisodeSource) -> ImportMapping:
    """The file's, the format's own or the derived one, with what the command line changes."""
    if arguments.mapping is not None:
        try:
            values = json.loads(arguments.mapping.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UsageError(f"--mapping {arguments.mapping}: expected JSON: {error}") from error
        mapping = from_json(ImportMapping, values, str(arguments.mapping))
    elif arguments.format == "agibot":
        mapping = AGIBOT_WORLD
    else:
        mapping = derive_mapping(source)
    if arguments.image_size is not None:
        height, width = arguments.image_size
        cameras = tuple(dataclasses.replace(camera, height=height, width=width) for camera in mapping.cameras)
        mapping = dataclasses.replace(mapping, cameras=cameras)
    given = {"image_stride": arguments.image_stride, "control_hz": arguments.control_hz}
    return dataclasses.replace(mapping, **{name: value for name, value in given.items() if value is not None})


def _own_translator(arguments: ImportArguments) -> Translator:
    given = [
        flag
        for flag, value in (
            ("--task", arguments.task),
            ("--robot", arguments.robot),
            ("--image-size", arguments.image_size),
            ("--image-stride", arguments.image_stride),
            ("--control-hz", arguments.control_hz),
        )
        if value
    ]
    if given:
        raise UsageError(
            f"{arguments.path} was exported by this project and brings all that along: leave out {', '.join(given)}, or "
            "give a --mapping to import it as demonstrations"
        )
    return ExportTranslator()


def _mapped_translator(arguments: ImportArguments, source: EpisodeSource) -> Translator:
    if not arguments.task:
        raise UsageError("--task is missing: the task whose offline table the demonstrations feed, restock_shelf say")
    mapping = make_mapping(arguments, source)
    check_mapping(mapping, source)
    robot_id = arguments.robot or arguments.format
    return MappedTranslator(mapping, arguments.task, robot_id, WallClock(), f"{arguments.format} import")


def _tell(arguments: ImportArguments, report: ImportReport) -> int:
    for refusal in report.refused:
        say(f"refused   {refusal.reason}")
    verb = "could be imported" if arguments.dry_run else "imported"
    say(
        f"{len(report.imported)} episodes {verb} ({report.num_frames} frames), {len(report.present)} were there already, "
        f"{len(report.refused)} refused"
    )
    if arguments.json:
        print_json({"dry_run": arguments.dry_run, **dataclasses.asdict(report)})
    return 1 if report.refused else 0
