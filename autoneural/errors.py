"""The one exception that reaches a user: one line saying what is wrong, where, and what to do."""


class UserError(Exception):
    """Bad input from outside (a file, a flag, a request). The CLI prints it and exits with 2."""
