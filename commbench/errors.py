"""The one exception that means "the user must change something"."""


class UserError(Exception):
    """Bad input, told in one line: what was given, what is allowed, what to do.

    The command line prints the message without a traceback and exits with status 2 on every rank.
    Anything else that escapes is a bug and keeps its traceback.
    """


EXIT_BUG = 1
EXIT_USER = 2
