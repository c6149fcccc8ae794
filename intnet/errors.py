"""The errors a user can mend.

Every message is one line that says what came, what is allowed and what to do. The programs in ``experiments/`` print it
and end with exit code 2; in a notebook it is an ordinary exception.
"""


class InputError(ValueError):
    """Something the caller gave, or the place it is to be stored, cannot be used as it is."""


class DataError(InputError):
    """A data set is missing, damaged, or not the one it was taken for."""


class StudyError(InputError):
    """A results folder cannot be used: another study, another run, damaged or not writable."""


class InUseError(StudyError):
    """Another run is using a results folder."""


class InputTypeError(InputError, TypeError):
    """A value of the wrong type: floats where integers are due, for example."""


class DeviceError(InputError):
    """A GPU was asked for and there is none that can be used, or it has no memory left."""
