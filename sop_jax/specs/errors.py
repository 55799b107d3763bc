"""Failures that a caller can treat differently. Each message says what failed, expected, got, which id, and the fix."""


class SopError(Exception):
    """Base of every error that this project raises on purpose."""


class InvalidEpisodeError(SopError):
    """An episode breaks its schema, its ranges, its checksum or its identity; it must be set aside, never trained on."""


class UnlabelledEpisodeError(SopError):
    """This labeler can't read an episode that has nothing wrong with it: another may. Until then nothing of it is trained on,
    and it stays in the store for others."""


class EpisodeExistsError(SopError):
    """The store holds an episode of this id already, with other bytes."""


class EpisodeNotFoundError(SopError):
    """The store holds no episode of this id."""


class InvalidPublicationError(SopError):
    """A publication is torn, or was made for another base model or other normalisation statistics; keep the old policy."""


class ReplayUnavailableError(SopError):
    """The replay server can't be reached within the deadline; the call may be repeated."""


class ReplayAccessError(SopError):
    """The replay server doesn't let this certificate in or make this call, or isn't trusted itself; repeating won't help."""


class InferenceTimeoutError(SopError):
    """A policy gave no chunk within the request's deadline: it serves too many robots, is too slow, or hangs."""


class RateLimitedError(SopError):
    """A table's rate limiter held the request back for the whole timeout; ask another table or try later."""


class TableNotFoundError(SopError):
    """The replay server has no table of this name."""


class ConfigError(SopError):
    """A configuration value is out of its range or contradicts another."""


class MissingDependencyError(SopError):
    """Something this command needs isn't installed on this machine; the message names the fix."""
