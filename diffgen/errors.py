"""The one error a user is meant to see, and how errors of others are told."""


class UserError(ValueError):
    """A mistake in a setting, a file or a label that the user can mend.

    The message is one line that names the thing; the command line prints it without a traceback
    and exits with status 2 (promise 9 of the design).
    """

    status = 2


class IncompleteError(UserError):
    """All is done that can be, and a part of what was asked for is not there; exit status 3."""

    status = 3


def one_line(error: BaseException) -> str:
    """What an error says, without line breaks; the name of its type if it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
