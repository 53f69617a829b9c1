"""The exceptions that mean "the user can mend this"; every other exception is a bug and keeps its traceback."""


class InvalidArgument(ValueError):
    """An argument out of range, raised by a function of the library; the message names the argument and its value."""


class UserError(ValueError):
    """A mistake of the user's: the message says what is wrong, where, and what to do, in one line.

    `launch.py` prints the message without a traceback and exits with status 2. `builders.registry.as_user_error` turns an
    `InvalidArgument` into one, with the config key in front.
    """


class NotPrepared(UserError):
    """A data set is not on disk in a readable form; `--mode=prepare` mends that."""
