"""What an operator can put right. The command line prints it as one line and exits."""

from __future__ import annotations

from collections.abc import Sequence


class OpsError(Exception):
    """Something stands in the way; the message says what, where and what to do.

    Attributes:
        code: exit status of the command that met it.
    """

    code = 1


class ServerMissing(OpsError):  # noqa: N818 - named after what happened
    """No program for an embedded server was found."""

    code = 3


class PortInUse(OpsError):  # noqa: N818 - named after what happened
    """Another process listens where we would."""

    code = 4


class AlreadyRunning(OpsError):  # noqa: N818 - named after what happened
    """Another `tidegate up` holds the same directory."""

    code = 5


class StartFailed(OpsError):  # noqa: N818 - named after what happened
    """A process of the stack did not become ready."""

    code = 6


class Unreachable(OpsError):  # noqa: N818 - named after what happened
    """The admin API, a store or the provider did not answer."""

    code = 7


class NoStack(OpsError):  # noqa: N818 - named after what is missing
    """No stack has run in the folder, and neither a token nor an address was given in its place."""

    code = 9


class Refused(OpsError):  # noqa: N818 - named after what happened
    """The admin API answered, and said no.

    Attributes:
        mistakes: lines of a configuration that are wrong, where it was asked about one.
    """

    code = 8

    def __init__(self, said: str, mistakes: Sequence[str] = ()) -> None:
        super().__init__(said)
        self.mistakes = tuple(mistakes)
