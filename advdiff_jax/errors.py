"""The one exception that means "the user can mend this"."""


class UserError(ValueError):
    """A mistake of the user's: the message says what is wrong, where, and what to do, in one line.

    `launch.py` prints the message without a traceback and exits with status 2; every other exception is a bug
    and keeps its traceback.
    """
