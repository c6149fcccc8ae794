"""The kernels on a GPU: the names and arguments of ``kernels.plain``, arrays on the device, the same bits.

Nothing here is imported until a device is asked for.
"""
