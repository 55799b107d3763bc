import pytest

from sop_jax.replay.server import find_reverb_python
from sop_jax.specs.errors import MissingDependencyError


def need_reverb() -> None:
    """Skips the test where the server's environment isn't installed."""
    try:
        find_reverb_python()
    except MissingDependencyError as error:
        pytest.skip(str(error))
