"""The errors that are the user's to mend: one sentence each, shown without a traceback."""


class UserError(Exception):
    """Something given cannot be used; the message says what is wrong and what would be right."""


class Interrupted(Exception):  # noqa: N818 (not an error)
    """The run was asked to stop by a signal, and has saved its state."""

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.signal = signal  # a shell expects the exit code 128 + signal


LARGEST = 10**8
"""Most of anything that can be counted: beyond it no run here would end."""


def check_range(minimum: int, config: object, *names: str, most: int | float = LARGEST) -> None:
    """Raise UserError unless every named field is None or a number from `minimum` to `most`."""
    for name in names:
        value = getattr(config, name)
        where = f"{type(config).__name__}.{name}"
        if value is not None and not value >= minimum:  # also where it is not a number
            raise UserError(f"{where} must be at least {minimum}, not {value}")
        if value is not None and value > most:
            raise UserError(f"{where} must be at most {most:,}, not {value}")
