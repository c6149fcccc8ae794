"""What the writers of ONNX graphs share: nodes, constants, the walk over a program's operations, the file."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from intnet._version import __version__
from intnet.errors import InputError
from intnet.export.operations import Accumulator, Operation, Pair, Program, Requantize, Tensor, rounded_range
from intnet.files import write_atomically
from intnet.formats import Rounding
from intnet.formats.fixed import MAX_WORD_BITS
from intnet.network import Network

OPSET = 18
IR_VERSION = 9  # what came with that opset, so that older runtimes read it too
FLOAT_EXACT = 2**24
"""Float32 holds every integer up to here."""


def onnx_package() -> Any:
    """Return the package onnx.

    Raises
    ------
    InputError
        If it is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise InputError("this needs the package onnx, which is not installed; run: pip install 'intnet[onnx]'") from None
    return onnx


class GraphWriter:
    """Writes a program as a graph, an operation at a time; a subclass knows how.

    Every tensor of the program is a value of the graph, by its name, the batch first and channels last; what lies between
    has the name of its layer, a slash and a number.
    """

    writers: ClassVar[dict[type[Operation], Callable[..., str]]]
    numbers: ClassVar[Any]  # the type of the program's tensors
    opsets: ClassVar[dict[str, int]] = {"": OPSET}

    def __init__(self, program: Program, batch: int | None) -> None:
        self.onnx = onnx_package()
        self.program, self.batch = program, batch
        self.nodes: list[Any] = []
        self.constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self.initializers: list[Any] = []
        self.names = [tensor.name for tensor in program.tensors]
        if self.names.count("input") > 1:
            raise InputError("a layer is called 'input', which is the name of a graph's input; give it another name")
        self.layer = ""

    # Pieces

    def add(self, kind: str, *inputs: str, domain: str = "", output: str | None = None, **attributes: Any) -> str:
        """Add a node with one output; return the output's name."""
        name = output or f"{self.layer}/{len(self.nodes)}"
        self.nodes.append(
            self.onnx.helper.make_node(
                kind, list(inputs), [name], f"{self.layer}/{kind}{len(self.nodes)}", domain=domain, **attributes
            )
        )
        return name

    def constant(self, values: Any, kind: Any, name: str | None = None) -> str:
        """Return the name of a constant; equal ones without a name of their own are one."""
        array = np.asarray(values, kind)
        key = (array.dtype.str, array.shape, array.tobytes())
        if name is None and key in self.constants:
            return self.constants[key]
        made = name or f"constant/{len(self.initializers)}"
        if name is None:
            self.constants[key] = made
        self.initializers.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), made))
        return made

    def channels_first(self, x: str) -> str:
        """Return images as ONNX has them."""
        return self.add("Transpose", x, perm=[0, 3, 1, 2])

    def channels_last(self, x: str) -> str:
        """Return images as the program has them."""
        return self.add("Transpose", x, perm=[0, 2, 3, 1])

    @staticmethod
    def pads(padding: tuple[int, int, int, int]) -> list[int]:
        """Return top, left, bottom, right."""
        top, bottom, left, right = padding
        return [top, left, bottom, right]

    def flatten(self, x: str, output: Tensor) -> str:
        """Return images as vectors."""
        return self.add("Reshape", x, self.constant([-1, output.size], np.int64))

    def refuse(self, why: str) -> InputError:
        """Return the error that names the layer."""
        return InputError(f"{'the input' if self.layer == 'input' else f'layer {self.layer!r}'} {why}")

    # The whole

    def model(self, network: Network, notes: dict[str, str]) -> Any:
        """Write all operations, and return the checked model."""
        helper = self.onnx.helper
        for operation in self.program.operations:
            self.layer = operation.name
            write = self.writers.get(type(operation))
            if write is None:
                raise self.refuse(f"({type(operation).__name__}) has no form here; use write_c")
            made = write(self, operation)
            self.add("Identity", made, output=self.names[operation.output])
        ends = []
        for index in (0, self.program.output):
            tensor = self.program.tensors[index]
            shape = (self.batch or "n", *tensor.shape)
            ends.append(helper.make_tensor_value_info(tensor.name, self.numbers(self.onnx), shape))
        graph = helper.make_graph(self.nodes, "intnet", [ends[0]], [ends[1]], self.initializers)
        opsets = [helper.make_opsetid(domain, version) for domain, version in self.opsets.items()]
        model = helper.make_model(
            graph, producer_name="intnet", producer_version=__version__, opset_imports=opsets, ir_version=IR_VERSION
        )
        tensors = {
            one.name: {"word_bits": one.word_bits, "exponent": one.exponent, "range": [one.low, one.high]}
            for one in self.program.tensors
        }
        helper.set_model_props(model, {
            "intnet.digest": self.program.digest,
            "intnet.recipe": json.dumps(network.recipe.to_dict()),
            "intnet.tensors": json.dumps(tensors),
            **notes,
        })  # fmt: skip
        self.onnx.checker.check_model(model)
        return model


def save(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a model's file, whole."""
    content = model.SerializeToString()
    write_atomically(Path(path), lambda draft: draft.write_bytes(content))


def leaves(within: Pair, limits: Pair) -> bool:
    """Tell whether a range is not within limits."""
    return not limits[0] <= within[0] <= within[1] <= limits[1]


def word_of(accumulator: Accumulator) -> Requantize:
    """Return how sums come into an accumulator."""
    return Requantize(0, Rounding.FLOOR, accumulator.overflow, min(accumulator.bits, MAX_WORD_BITS))


def may_overflow(sums: Pair, to: Requantize) -> bool:
    """Tell whether rounded sums may leave their word; an overflow that is an error is refused elsewhere."""
    return leaves(rounded_range(sums, to), to.limits)


def largest(sums: Pair) -> int:
    """Return the largest magnitude."""
    return max(abs(sums[0]), abs(sums[1]))
