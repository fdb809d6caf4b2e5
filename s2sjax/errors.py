"""The errors that are the user's to mend: one sentence each, shown without a traceback."""


class UserError(Exception):
    """Something given cannot be used; the message says what is wrong and what would be right."""


class Interrupted(Exception):  # noqa: N818 (not an error)
    """The run was asked to stop (Ctrl-C, SIGTERM) and has saved its state.

    Attributes:
        signal: the signal's number; a shell expects the exit code ``128 + signal``.
    """

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.signal = signal
