"""What the programs in ``experiments/`` share: one-line errors, exit codes, ranges.

Exit codes: 0 done, 2 bad input (one line on the error stream says what came, what is allowed, what to do), 130 interrupted.
"""

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from intnet.errors import InputError


class Parser(argparse.ArgumentParser):
    """An argument parser whose help keeps its line breaks and whose errors are one line."""

    def __init__(self, description: str, epilog: str) -> None:
        super().__init__(
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """End with exit code 2 and one line."""
        fail(f"{message}; see --help")


def fail(message: str) -> NoReturn:
    """End the program with exit code 2 and one line on the error stream."""
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    raise SystemExit(2)


def integer_range(text: str) -> tuple[int, ...]:
    """Read a half-open range ``5:20``, or values ``5,9,12``, of integers.

    Examples
    --------
    >>> integer_range("5:8"), integer_range("9"), integer_range("12,9")
    ((5, 6, 7), (9,), (12, 9))
    """
    try:
        if ":" in text:
            start, stop = (int(part) for part in text.split(":"))
            values = tuple(range(start, min(stop, start + 2**16)))
        else:
            values = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"got {text!r}; allowed are a half-open range START:STOP (5:20 is 5..19) or values A,B,C"
        ) from None
    if not values:
        raise argparse.ArgumentTypeError(f"got {text!r}, which is empty: START:STOP needs START < STOP (5:20 is 5..19)")
    return values


def positive(text: str) -> int:
    """Read an integer of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; allowed is an integer of at least 1")
    return value


def run(main: Callable[[], None], interrupted: Callable[[], str]) -> NoReturn:
    """Run a program: errors the user can mend become one line and exit code 2, Ctrl-C a line and exit code 130.

    Parameters
    ----------
    main : function
        The program.
    interrupted : function
        Gives the line for Ctrl-C: what is kept and how to go on.
    """
    try:
        main()
    except InputError as error:
        fail(str(error))
    except ModuleNotFoundError as error:
        fail(f"this needs the package {error.name}, which is not installed; run: pip install 'intnet[all]'")
    except KeyboardInterrupt:
        sys.stderr.write(f"\n{interrupted()}\n")
        raise SystemExit(130) from None
    raise SystemExit(0)
