"""The one exception that users are meant to read."""


class LimitedError(ValueError):
    """Bad input: one sentence that names the file or value and the remedy.

    The command line prints it as one line and exits with status 2.
    """


class StaleError(LimitedError):
    """Something was made from other data than there are now."""
