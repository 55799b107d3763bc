"""Where stores and policies are, as a command line says it."""

import pathlib

from sop_jax.cli.arguments import UsageError

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def store_url(directory: pathlib.Path) -> str:
    """The URL of a store on the local disk."""
    return f"file://{directory.absolute()}/"


def as_store_url(text: str) -> str:
    """A store given as a URL or as a local folder."""
    return text if "://" in text or text.startswith("{") else store_url(pathlib.Path(text))


def find_in_repository(path: str) -> pathlib.Path:
    """A path below the working directory, or else below the repository that this package lies in."""
    given = pathlib.Path(path)
    if given.exists() or given.is_absolute():
        return given
    return REPOSITORY / given


def find_policy(path: str) -> pathlib.Path:
    """A policy's directory. Raises UsageError if there is none."""
    found = find_in_repository(path)
    if not (found / "policy.json").exists():
        raise UsageError(
            f"{path} is no policy: it has no policy.json. Make one with `sop pretrain --output DIRECTORY` or `sop weights "
            "import`"
        )
    return found
