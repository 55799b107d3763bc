"""What can go wrong in a world, one class per failure that a caller may treat differently."""


class EnvsError(Exception):
    """Base of the errors of this package."""


class DivergedError(EnvsError):
    """The physics left the realm of finite numbers. The episode is worthless: drop it and reset."""


class UnknownTaskError(EnvsError, KeyError):
    """No task has this name."""

    def __str__(self) -> str:
        return str(self.args[0])


class InvalidActionError(EnvsError, ValueError):
    """An action of the wrong shape, or with a value that is not finite."""


class RenderingError(EnvsError):
    """No GL context can be made on this machine."""
