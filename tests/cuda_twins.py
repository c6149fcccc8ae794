"""What the tests of the GPU kernels share: arguments to the device and back."""

import numpy as np

from intnet.kernels.cuda import _driver


def run(function, *arguments):
    """Call a GPU kernel's host function with NumPy arrays: all are copied to the device, and back in place afterwards."""
    pairs = [(one, _driver.to_device(one)) if isinstance(one, np.ndarray) else (one, one) for one in arguments]
    result = function(*(there for _, there in pairs))
    for here, there in pairs:
        if isinstance(here, np.ndarray) and here.flags.writeable:
            here[...] = _driver.to_host(there)
    return result
