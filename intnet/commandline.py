"""What the programs in ``experiments/`` share: one-line errors, exit codes, ranges.

Exit codes: 0 done, 2 bad input (one line on the error stream says what came, what is allowed, what to do), 130 interrupted.

This module imports nothing heavy, so that a program is ready for Ctrl-C before it imports what it works with.
"""

import argparse
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from intnet.errors import InputError, InUseError

AXIS_MAX = 2**16
"""The most values of a range."""

PATIENCE = 60
"""Seconds to wait for another run that writes into the folder."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose help keeps its line breaks and whose errors are one line."""

    def __init__(self, description: str, epilog: str) -> None:
        super().__init__(
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """Read the command line; ``--option -3:5`` gives the option a value, which argparse takes for another option."""
        joined: list[str] = []
        for word in sys.argv[1:] if args is None else args:
            if joined and joined[-1].startswith("--") and "=" not in joined[-1] and re.match(r"-\d", word):
                joined[-1] += f"={word}"
            else:
                joined.append(word)
        return super().parse_args(joined, namespace)

    def add_usual(self, folder_name: str) -> None:
        """Add the options that every study has; `folder_name` is what the help calls the default results folder."""
        threads = integer(range(1, 1025))
        self.add_argument("--threads", type=threads, metavar="N", help="the bits are the same (default: all cores)")
        self.add_argument("--out", type=folder, metavar="DIR", help=f"results folder (default: {folder_name})")
        self.add_argument("--fresh", action="store_true", help="set an old folder aside under a dated name and begin anew")
        self.add_argument("--no-plots", action="store_true", help="write no picture")
        self.add_argument("--quiet", action="store_true", help="no progress bar, no report")

    def add_workers(self) -> argparse._MutuallyExclusiveGroup:
        """Add the options that say who runs trainings, and return their group: one of them excludes the others."""
        how = self.add_mutually_exclusive_group()
        processes = integer(range(1, 1025))
        how.add_argument("--workers", type=processes, metavar="N", help="processes (default: this one alone)")
        how.add_argument("--scheduler", metavar="tcp://HOST:PORT", help="of a Dask cluster")
        return how

    def refuse_foreign(self, arguments: argparse.Namespace, own: Mapping[str, tuple[str, ...]]) -> None:
        """End with exit code 2 if an option was given that the study asked for does not have; `own` names those that do."""
        for name, studies in own.items():
            if getattr(arguments, name) is not None and arguments.study not in studies:
                option = f"--{name.replace('_', '-')}"
                self.error(
                    f"{option} belongs to --study {' or '.join(studies)}, got it with --study {arguments.study}; leave it out"
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
            if stop - start > AXIS_MAX:  # a slip must not fill the memory
                raise argparse.ArgumentTypeError(f"got {text!r}, {stop - start} values; at most {AXIS_MAX} are allowed")
            values = tuple(range(start, stop))
        else:
            values = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"got {text!r}; allowed are a half-open range START:STOP (5:20 is 5..19) or values A,B,C"
        ) from None
    if not values:
        raise argparse.ArgumentTypeError(f"got {text!r}, which is empty: START:STOP needs START < STOP (5:20 is 5..19)")
    return values


def integer(allowed: range | None = None) -> Callable[[str], int]:
    """Return a reader of one integer, of those in `allowed` or any."""

    def read(text: str) -> int:
        with suppress(ValueError):
            if allowed is None or int(text) in allowed:
                return int(text)
        which = f" in {allowed[0]}..{allowed[-1]}" if allowed else ""
        raise argparse.ArgumentTypeError(f"got {text!r}; allowed is an integer{which}")

    return read


def number(text: str) -> float:
    """Read a real number."""
    with suppress(ValueError):
        return float(text)
    raise argparse.ArgumentTypeError(f"got {text!r}; allowed is a number")


def words(text: str) -> tuple[str, ...]:
    """Read words ``a,b``."""
    return tuple(text.split(","))


def numbers(text: str) -> tuple[float, ...]:
    """Read real numbers ``0.1,2``."""
    return tuple(number(word) for word in text.split(","))


def integers(text: str) -> tuple[int, ...]:
    """Read integers of at least 1, ``3,5``."""
    read = integer(range(1, 2**31))
    return tuple(read(word) for word in text.split(","))


def sizes(text: str) -> tuple[int, ...]:
    """Read numbers of units ``100,50``; ``none`` is none.

    Examples
    --------
    >>> sizes("100,50"), sizes("none")
    ((100, 50), ())
    """
    if text == "none":
        return ()
    with suppress(ValueError):
        found = tuple(int(part) for part in text.split(","))
        if min(found) >= 1 and max(found) <= AXIS_MAX:
            return found
    raise argparse.ArgumentTypeError(f"got {text!r}; allowed are integers in 1..{AXIS_MAX} as A,B,C, or none")


def folder(text: str) -> Path:
    """Read the path of a folder. An empty one is refused: it is a variable that was not set, not the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("got ''; allowed is the path of a folder, '.' for the current one")
    return Path(text)


def begin_anew(
    arguments: argparse.Namespace, set_aside: Callable[[Path], Path | None], check: Callable[[], object] = lambda: None
) -> None:
    """Set the old results aside, if that is asked for, and what is asked for can be done: `check` raises if it cannot."""
    if not arguments.fresh:
        return
    check()
    if (aside := set_aside(arguments.out)) and not arguments.quiet:
        sys.stdout.write(f"The old results are in {aside}\n")
        sys.stdout.flush()


def how_to_go_on(arguments: argparse.Namespace, kept: str) -> str:
    """Return the line for Ctrl-C: what is kept, and how to go on."""
    command = "the same command without --fresh" if arguments.fresh else "the same command"
    return f"Interrupted. {kept} are kept in {arguments.out}; {command} goes on from there."


def finish(arguments: argparse.Namespace, title: str, sentences: Sequence[str]) -> None:
    """Write the report of the results folder, and print what came out unless the program is to be quiet.

    Another run that has the folder writes the report when it ends.
    """
    from intnet import files
    from intnet.report import write_report

    with suppress(InUseError), files.locked(arguments.out, wait=PATIENCE):
        write_report(arguments.out, title=title, sentences=sentences)
    if not arguments.quiet:
        sys.stdout.write("\n".join((*sentences, f"Results: {arguments.out}\n")))


def run(
    parse: Callable[[], argparse.Namespace],
    main: Callable[[argparse.Namespace], None],
    interrupted: Callable[[argparse.Namespace], str],
) -> NoReturn:
    """Run a program: errors the user can mend become one line and exit code 2, Ctrl-C a line and exit code 130.

    Parameters
    ----------
    parse : function
        Reads the command line.
    main : function of what `parse` returns
        The program. It must store its results such that it can be killed at any time.
    interrupted : function of what `parse` returns
        Gives the line for Ctrl-C: what is kept and how to go on.
    """
    _on_interrupt("Interrupted before anything was done.")
    try:
        arguments = parse()
        _on_interrupt(interrupted(arguments))
        main(arguments)
        sys.stdout.flush()
    except InputError as error:
        fail(str(error))
    except BrokenPipeError:  # whoever read the report has heard enough; the results are stored
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        fail(f"cannot write the report: {error.strerror or error}; the results are stored")
    except ModuleNotFoundError as error:
        fail(f"this needs the package {error.name}, which is not installed; run: pip install 'intnet[all]'")
    except MemoryError:
        fail("not enough memory; ask for fewer seeds or iterations at a time, or for fewer threads")
    raise SystemExit(0)


def _on_interrupt(line: str) -> None:
    """From now on, let Ctrl-C end the process at once with `line` and exit code 130.

    A KeyboardInterrupt could come up anywhere: inside an import or a library that swallows it or shows a traceback, or
    while the threads are waited for. Nothing has to be unwound, as what is stored survives even ``kill -9``.
    """

    def end(*_: object) -> NoReturn:
        with suppress(OSError):
            os.write(2, f"\n{line}\n".encode())  # not sys.stderr, which may be in the middle of a write
        os._exit(130)

    signal.signal(signal.SIGINT, end)
