"""Errors a person can act on, and the exit code that each one carries.

The exit codes are the same in every command and are meant for launchers:

====  ==========================================================
0     done
2     user or configuration error: do not start again unchanged
3     training met non-finite numbers too often and gave up
4     finished, but some inputs were refused: do not start again
75    saved after a notice: start me again
====  ==========================================================
"""

EXIT_DONE = 0
EXIT_USER_ERROR = 2
EXIT_NON_FINITE = 3
EXIT_INPUTS_REFUSED = 4
EXIT_START_AGAIN = 75


class MovqError(Exception):
    """A message for a person: what is wrong, where, and what to do.

    Commands print the message on one line of stderr, without a traceback, and
    leave with `exit_code`.
    """

    exit_code = EXIT_USER_ERROR


class UserError(MovqError):
    """A wrong flag, config value, path or input file."""


class NonFiniteError(MovqError):
    """Too many training steps in a row had a non-finite loss or gradient."""

    exit_code = EXIT_NON_FINITE


class InputsRefused(MovqError):
    """The work is done, but some of the inputs could not be used."""

    exit_code = EXIT_INPUTS_REFUSED


class Preempted(MovqError):
    """A notice arrived, the state is saved, the same command continues."""

    exit_code = EXIT_START_AGAIN
