"""Run a program that gets a signal as soon as it has called a function so many times: a stop that no clock decides.

python tests/stopping.py MODULE FUNCTION COUNT SIGNAL PROGRAM ARGUMENTS...
"""

import functools
import importlib
import os
import runpy
import sys
from operator import attrgetter


def stop_after(module, function, count, number):
    """Make a function send its process a signal at the end of its call `count`."""
    *path, name = function.split(".")
    holder = importlib.import_module(module)
    holder = attrgetter(".".join(path))(holder) if path else holder
    original, calls = getattr(holder, name), iter(range(1, sys.maxsize))

    @functools.wraps(original)
    def counted(*arguments, **options):
        made = original(*arguments, **options)
        if next(calls) == count:
            os.kill(os.getpid(), number)
        return made

    setattr(holder, name, counted)


if __name__ == "__main__":
    stop_after(*sys.argv[1:3], *map(int, sys.argv[3:5]))
    sys.argv = sys.argv[5:]
    sys.path[0] = os.path.dirname(sys.argv[0])
    runpy.run_path(sys.argv[0], run_name="__main__")
