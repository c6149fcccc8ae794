"""Tensors of integers with powers of two: value = mantissa * 2**exponent."""

from intnet.tensor.conversion import dequantize, multiply_by_quantized_multiplier, quantize, requantize, round_shift
from intnet.tensor.product import matmul
from intnet.tensor.qtensor import Counters, QTensor

__all__ = [
    "Counters",
    "QTensor",
    "dequantize",
    "matmul",
    "multiply_by_quantized_multiplier",
    "quantize",
    "requantize",
    "round_shift",
]
