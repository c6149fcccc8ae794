"""A trained network in C99: its inference, and of dense networks a training step, in integers, without heap and libraries.

The code includes ``stdint.h`` and nothing else. It never shifts a negative number, and every sum is held in a type that is
proven to hold it, or wraps as an unsigned number: nothing of it is undefined. It gives the bits of
:class:`intnet.network.Network`.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from intnet._version import __version__
from intnet.errors import InputError
from intnet.export import operations as ops
from intnet.export._c_arithmetic import Helpers, Rounder, Sums, c_type, integer, table, type_of
from intnet.export._c_training import Training
from intnet.export.operations import Operation, Program, Requantize, Tensor
from intnet.export.program import program_of
from intnet.files import explained, write_changed
from intnet.formats import Overflow, Rounding
from intnet.network import Network
from intnet.optimizers import SGD

_IN_PLACE = (ops.ReLU, ops.LeakyReLU, ops.Clamp, ops.Sign, ops.Table)
_KEYWORDS = frozenset({
    "auto", "break", "case", "char", "const", "continue", "default", "double", "else", "enum", "extern", "float", "for", "goto",
    "inline", "int", "long", "register", "restrict", "return", "short", "signed", "sizeof", "static", "struct", "switch",
    "typedef", "union", "unsigned", "void", "volatile", "while",
})  # fmt: skip
"""Those that a name might be."""


def write_c(
    network: Network, folder: str | Path, name: str = "model", *, scratch: str = "static",
    inputs: tuple[int, int] | None = None, optimizer: SGD | None = None, batch: int = 64, seed: int = 0,
) -> tuple[Path, Path]:  # fmt: skip
    """Write a network's inference as ``name.h`` and ``name.c``, and with an optimizer its training step.

    ``name_infer(input, output)`` takes the integers of one sample, channels last, as :class:`intnet.inputs.Encoder` makes them,
    to those that ``Network.forward`` gives in evaluation; ``name_argmax(output)`` gives the first of the largest.
    ``name_training_start(t)`` and ``name_train_step(t, inputs, labels, samples, step)`` train, from these weights on, as
    :class:`intnet.training.Trainer` does: the same bits after every step, whose number counts through all epochs;
    ``name_training_infer(t, input, output)`` evaluates what they have become.

    Parameters
    ----------
    network : Network
        In fixed point, on the CPU.
    folder : str or Path
        Made if it is not there.
    name : str
        Of the files, and what their names begin with: letters of any case, digits and underscores.
    scratch : {"static", "caller"}
        Where what lies between layers is kept: in the code, which one thread may call at a time; or in a ``name_scratch`` that
        the caller passes as the third argument, and then ``name_infer`` is re-entrant. ``NAME_SCRATCH_BYTES`` is its size.
    inputs : (int, int), optional
        A promise of the least and the greatest input: it makes sums of the inference narrower. The code trusts it.
    optimizer : SGD, optional
        With one rate. Then the network is made of `Flatten`, `Dense` and `ReLU`, with fixed-point formats for all roles, and
        the loss is cross_entropy or squared_error.
    batch : int
        Samples of a full batch, of a training step.
    seed : int
        The training's, of its random bits.

    Returns
    -------
    (Path, Path)
        The header and the source.

    Raises
    ------
    InputError
        If no program expresses the network (:func:`intnet.export.program_of`), an overflow may occur that is an error, sums
        may leave 64 bits and have to saturate, there is no training step in C for a layer, a loss, an update or an optimizer,
        or `name` is no name in C.
    """
    if scratch not in ("static", "caller"):
        raise InputError(f"scratch is 'static' or 'caller', got {scratch!r}")
    code = Inference(program_of(network, inputs), checked_name(name), scratch == "caller")
    training = None
    if optimizer is not None:
        weights = {one.name: f"{code.label(one)}_weights" for one in code.program.operations if isinstance(one, ops.Dense)}
        training = Training(network, optimizer, batch, seed, name, code.helpers, weights)
    header, source = code.files(network, training)
    place = Path(folder)
    with explained(place):
        place.mkdir(parents=True, exist_ok=True)
    paths = place / f"{name}.h", place / f"{name}.c"
    for path, text in zip(paths, (header, source), strict=True):
        write_changed(path, text.encode("ascii"))
    return paths


def checked_name(name: str) -> str:
    """Return a name that C takes, or refuse it."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,30}", name) or name in _KEYWORDS | {"do", "if"}:
        raise InputError(f"a name in C is up to 31 letters, digits and underscores, the first a letter, got {name!r}")
    return name


def guarded(name: str, body: str) -> str:
    """Return a header with its include guard."""
    guard = f"{name.upper()}_H"
    return (
        f'#ifndef {guard}\n#define {guard}\n\n#include <stdint.h>\n\n#ifdef __cplusplus\nextern "C" {{\n#endif\n\n{body}\n\n'
        f"#ifdef __cplusplus\n}}\n#endif\n\n#endif /* {guard} */\n"
    )


def title(what: str, network: Network, digest: str) -> str:
    """Return the comment that a file begins with."""
    layers = "\n".join(f"   {line}" for line in printable("\n".join(network.describe())).splitlines())
    return (
        f"/* {what}\n\n   Written by intnet {__version__} from a network of recipe {printable(network.recipe.name)!r}, samples "
        f"of {network.shape}:\n\n{layers}\n\n   Weights: SHA-256 {digest}\n*/\n"
    )


def printable(text: str) -> str:
    """Return text that may stand in a comment."""
    return text.encode("ascii", "replace").decode().replace("*/", "* /").replace("/*", "/ *")


def format_of(tensor: Tensor) -> str:
    """Return a tensor's shape and format, for a comment."""
    shape = "x".join(map(str, tensor.shape))
    return f"{shape} of fxp-s{tensor.word_bits}/{-tensor.exponent}"


def macros(name: str, what: str, tensor: Tensor) -> list[str]:
    """Return the definitions that tell of the input or the output."""
    upper = name.upper()
    return [
        f"#define {upper}_{what}S {tensor.size} /* {'x'.join(map(str, tensor.shape))} */",
        f"#define {upper}_{what}_BITS {tensor.word_bits}",
        f"#define {upper}_{what}_FRACTION_BITS {integer(-tensor.exponent)} /* an integer n stands for n / 2**this */",
    ]


def argmax(name: str, kind: str, classes: int) -> str:
    """Return the function that finds the largest output."""
    return (
        f"int {name}_argmax(const {kind} output[{name.upper()}_OUTPUTS])\n{{\n    int best = 0;\n"
        f"    for (int i = 1; i < {classes}; i++)\n        if (output[i] > output[best])\n            best = i;\n"
        f"    return best;\n}}"
    )


class Inference:
    """Writes the inference of a program."""

    def __init__(self, program: Program, name: str, reentrant: bool) -> None:
        self.program, self.name, self.reentrant = program, name, reentrant
        self.helpers = Helpers()
        self.rounder = Rounder(self.helpers)
        self.labels: dict[str, str] = {}
        self.places: dict[int, str] = {}
        self.buffers: list[tuple[str, int]] = []  # type and size of each
        self._place()

    # Where tensors lie

    def root(self, tensor: int) -> int:
        """Return the tensor whose integers a flattened one shares."""
        for one in self.program.operations:
            if one.output == tensor and isinstance(one, ops.Flatten):
                return self.root(one.inputs[0])
        return tensor

    def _place(self) -> None:
        """Give every tensor a buffer that is free while it is needed; the result the output."""
        program = self.program
        steps = [one for one in program.operations if not isinstance(one, ops.Flatten)]
        last: dict[int, int] = {}
        for number, one in enumerate(steps):
            last.update(dict.fromkeys(map(self.root, one.inputs), number))
        result = self.root(program.output)
        self.places = {0: "input"}
        free: list[int] = []
        held: dict[int, int] = {}  # by tensor, its buffer
        for number, one in enumerate(steps):
            tensor = program.tensors[one.output]
            kind = c_type(tensor.storage)
            done = [self.root(x) for x in one.inputs if last[self.root(x)] == number]
            if isinstance(one, _IN_PLACE):  # element by element: what it reads may be what it writes
                free += [held.pop(x) for x in done if x in held]
            if one.output == result:
                self.places[one.output] = "output"
            else:
                fitting = [buffer for buffer in free if self.buffers[buffer][0] == kind]
                if fitting:
                    buffer = max(fitting, key=lambda which: self.buffers[which][1])
                    free.remove(buffer)
                    self.buffers[buffer] = kind, max(self.buffers[buffer][1], tensor.size)
                else:
                    buffer = len(self.buffers)
                    self.buffers.append((kind, tensor.size))
                held[one.output] = buffer
                self.places[one.output] = f"scratch->buffer{buffer}"
            free += [held.pop(x) for x in done if x in held]

    # The files

    def files(self, network: Network, training: Training | None = None) -> tuple[str, str]:
        """Return the header and the source."""
        name, program, upper = self.name, self.program, self.name.upper()
        functions, tables, calls = [], [], []
        for one in program.operations:
            if isinstance(one, ops.Flatten):
                continue
            constants, body = self.operation(one)
            tables += constants
            functions.append(body)
            arguments = [self.places[self.root(x)] for x in one.inputs] + [self.places[one.output]]
            calls.append(f"    {self.label(one)}({', '.join(arguments)});")
        given, made = program.tensors[0], program.tensors[program.output]
        if self.root(program.output) == 0:
            calls.append(f"    for (int32_t i = 0; i < {made.size}; i++)\n        output[i] = input[i];")
        begin = ""
        if self.reentrant and not self.buffers:  # no struct is empty
            self.buffers.append(("int8_t", 1))
            begin = "    (void)scratch;\n"
        size = sum(int(kind[3:-2]) // 8 * count for kind, count in self.buffers)
        kinds = c_type(given.storage), c_type(made.storage)
        head = f"void {name}_infer(const {kinds[0]} input[{upper}_INPUTS], {kinds[1]} output[{upper}_OUTPUTS]"
        head += f", {name}_scratch *scratch)" if self.reentrant else ")"
        fields = "".join(f"    {kind} buffer{i}[{count}];\n" for i, (kind, count) in enumerate(self.buffers))
        struct = f"typedef struct {{\n{fields}}} {name}_scratch;"
        where = (
            "the caller's, and any call with one of its own is re-entrant" if self.reentrant else "static: one call at a time"
        )
        definitions = [
            *macros(name, "INPUT", given), f"#define {upper}_INPUT_LEAST {integer(given.low)} /* no input is less ... */",
            f"#define {upper}_INPUT_GREATEST {integer(given.high)} /* ... or greater */", *macros(name, "OUTPUT", made),
            f"#define {upper}_MULTIPLY_ADDS {program.multiply_adds}",
            f"#define {upper}_SCRATCH_BYTES {size} /* but for padding; {where} */",
        ]  # fmt: skip
        comment = "/* The outputs of one sample, channels last, as the network makes them in evaluation. */"
        body = "\n".join(definitions) + "\n\n" + (f"{struct}\n\n" if self.reentrant else "")
        body += f"{comment}\n{head};\n\n/* The first of the largest outputs. */\n"
        body += f"int {name}_argmax(const {kinds[1]} output[{upper}_OUTPUTS]);"
        if training is not None:
            body += f"\n\n{training.header()}"
            tables += training.tables
        more, seeds = ("", "") if training is None else (" and a step of its training", training.constants())
        what = title(f"{name}: a trained network's inference{more}, in integers.", network, program.digest)
        if self.buffers and not self.reentrant:
            struct, begin = f"{struct}\nstatic {name}_scratch memory;\n\n", f"    {name}_scratch *const scratch = &memory;\n"
        else:
            struct = ""
        parts = [
            f'{what}#include "{name}.h"',
            seeds,
            self.helpers.text(),
            *tables,
            struct.rstrip(),
            *functions,
        ]
        parts.append(f"{head}\n{{\n{begin}" + "\n".join(calls) + "\n}")
        parts += [argmax(name, kinds[1], made.size), *([] if training is None else training.functions)]
        return what + guarded(name, body), "\n\n".join(part for part in parts if part) + "\n"

    def label(self, one: Operation) -> str:
        """Return an operation's name in C, one of its own."""
        key = f"{one.name} {one.output}"
        if key not in self.labels:
            made = "layer_" + re.sub(r"[^A-Za-z0-9]+", "_", one.name.encode("ascii", "replace").decode())[:40]
            while made in self.labels.values():
                made += f"_{one.output}"
            self.labels[key] = made
        return self.labels[key]

    # Operations: constants, and a function

    def operation(self, one: Operation) -> tuple[list[str], str]:
        """Return the constant arrays of an operation, and its function."""
        tensors = self.program.tensors
        given, made = [tensors[x] for x in one.inputs], tensors[one.output]
        constants, lines, note = _WRITE[type(one)](self, one, given, made)
        names = ["x"] if len(given) == 1 else ["a", "b"]
        arguments = [f"const {c_type(t.storage)} *{x}" for t, x in zip(given, names, strict=True)]
        arguments.append(f"{c_type(made.storage)} *y")
        comment = f"/* {printable(one.name)}: {' and '.join(map(format_of, given))} -> {format_of(made)}{note} */"
        body = "\n".join(f"    {line}" for line in lines)
        return constants, f"{comment}\nstatic void {self.label(one)}({', '.join(arguments)})\n{{\n{body}\n}}"

    def stored(self, one: Any, made: Tensor, value: str, sums: tuple[int, int]) -> str:
        """Return the expression that is written for an exact value."""
        return f"({c_type(made.storage)})({self.rounder.expression(value, sums, one.to, one.name)})"

    def _sums(self, one: Any) -> tuple[Sums, list[str], str, str, str]:
        """Return how sums are held, the tables, what a sum begins with, what it ends as, and the comment."""
        label = self.label(one)
        sums = Sums(one.sums, one.accumulator, one.name)
        kind = f"int{next(bits for bits in (8, 16, 32, 64) if bits >= one.weight_bits)}_t"
        note = f"weights with {-one.weight_exponent} fraction bits"
        tables = [table(kind, f"{label}_weights", one.weights.reshape(-1).tolist(), f"{printable(one.name)}: {note}")]
        bias = None
        if one.bias is not None:
            values = one.bias.tolist()
            tables.append(table(type_of(min(values), max(values)), f"{label}_bias", values, "in the unit of the sums"))
            bias = f"{label}_bias[o]"
        begin, end = sums.finished("sum", bias, self.rounder)
        fate = "proven" if sums.proven else one.accumulator.overflow.value
        said = f"; {note}, accumulator of {one.accumulator.bits} bits ({fate}), {one.to}"
        return sums, tables, begin, end, said

    def dense(self, one: ops.Dense, _: list[Tensor], made: Tensor) -> Any:
        """Write a dense layer."""
        sums, tables, begin, end, note = self._sums(one)
        outputs, count = one.weights.shape
        lines = [
            f"for (int32_t o = 0; o < {outputs}; o++) {{", f"    {sums.kind} sum = {begin};", "    int64_t total;",
            f"    for (int32_t i = 0; i < {count}; i++)",
            f"        sum += {sums.product(f'{self.label(one)}_weights[o * {integer(count)} + i]', 'x[i]')};",
            f"    total = {end};", f"    y[o] = {self.stored(one, made, 'total', sums.held)};", "}",
        ]  # fmt: skip
        return tables, lines, note

    def conv(self, one: ops.Conv2D, given: list[Tensor], made: Tensor) -> Any:
        """Write a convolution: without padding and groups, a row of the kernel is one run of memory."""
        sums, tables, begin, end, note = self._sums(one)
        (rows, columns, outputs), (height, width, depth) = made.shape, given[0].shape
        _, kh, kw, channels = one.weights.shape
        down, right = one.stride
        weight = f"{self.label(one)}_weights"
        lines = [
            f"for (int32_t r = 0; r < {rows}; r++)", f"for (int32_t c = 0; c < {columns}; c++)",
            f"for (int32_t o = 0; o < {outputs}; o++) {{", f"    {sums.kind} sum = {begin};", "    int64_t total;",
        ]  # fmt: skip
        if not any(one.padding) and one.groups == 1:
            run = kw * channels
            pixel = f"x[((r * {down} + i) * {width} + c * {right}) * {depth} + k]"
            product = sums.product(f"{weight}[(o * {kh} + i) * {run} + k]", pixel)
            lines += [f"    for (int32_t i = 0; i < {kh}; i++)", f"        for (int32_t k = 0; k < {run}; k++)"]
            lines += [f"            sum += {product};"]
        else:
            top, _, left, _ = one.padding
            first = f" + o / {outputs // one.groups} * {channels}" if one.groups > 1 else ""
            product = sums.product(
                f"{weight}[((o * {kh} + i) * {kw} + j) * {channels} + k]",
                f"x[(at_row * {width} + at_column) * {depth}{first} + k]",
            )
            lines += [
                f"    for (int32_t i = 0; i < {kh}; i++) {{", f"        const int32_t at_row = r * {down} + i - {top};",
                f"        if (at_row < 0 || at_row >= {height})", "            continue;",
                f"        for (int32_t j = 0; j < {kw}; j++) {{",
                f"            const int32_t at_column = c * {right} + j - {left};",
                f"            if (at_column < 0 || at_column >= {width})", "                continue;",
                f"            for (int32_t k = 0; k < {channels}; k++)", f"                sum += {product};", "        }",
                "    }",
            ]  # fmt: skip
        place = f"(r * {columns} + c) * {outputs} + o"
        lines += [f"    total = {end};", f"    y[{place}] = {self.stored(one, made, 'total', sums.held)};", "}"]
        return tables, lines, note

    def pool(self, one: Any, given: list[Tensor], made: Tensor) -> Any:
        """Write the largest or the mean of every window."""
        (height, width, depth), (kh, kw), (top, _, left, _) = given[0].shape, one.window, one.padding
        rows, columns = made.shape[:2] if len(made.shape) == 3 else (1, 1)
        largest = isinstance(one, ops.MaxPool)
        kind = c_type(given[0].storage) if largest else "int64_t"
        begin = integer(given[0].low) if largest else "0"
        pixel = f"x[(at_row * {width} + at_column) * {depth} + k]"
        change = [f"if ({pixel} > found)", f"    found = {pixel};"] if largest else [f"found += {pixel};"]
        written = "found"
        end = []
        if not largest:
            end = [f"    found *= {integer(one.factor)};"] if one.factor != 1 else []
            written = self.stored(one, made, "found", one.sums)
        lines = [
            f"for (int32_t r = 0; r < {rows}; r++)", f"for (int32_t c = 0; c < {columns}; c++)",
            f"for (int32_t k = 0; k < {depth}; k++) {{", f"    {kind} found = {begin};",
            f"    for (int32_t i = 0; i < {kh}; i++) {{",
            f"        const int32_t at_row = r * {one.stride[0]} + i - {top};",
        ]  # fmt: skip
        if any(one.padding[:2]):
            lines += [f"        if (at_row < 0 || at_row >= {height})", "            continue;"]
        lines += [f"        for (int32_t j = 0; j < {kw}; j++) {{"]
        lines += [f"            const int32_t at_column = c * {one.stride[1]} + j - {left};"]
        if any(one.padding[2:]):
            lines += [f"            if (at_column < 0 || at_column >= {width})", "                continue;"]
        lines += [f"            {line}" for line in change] + ["        }", "    }", *end]
        lines += [f"    y[(r * {columns} + c) * {depth} + k] = {written};", "}"]
        note = f"; the largest of {kh}x{kw}" if largest else f"; sums of {kh}x{kw}, times {one.factor}, {one.to}"
        return [], lines, note

    def scale(self, one: ops.Scale, given: list[Tensor], made: Tensor) -> Any:
        """Write a batch normalization."""
        label, tables = self.label(one), []
        for what, values in (("factors", one.factors.tolist()), ("offsets", one.offsets.tolist())):
            tables.append(table(type_of(min(values), max(values)), f"{label}_{what}", values))
        value, read = self._before(one, given[0])
        lines = [
            f"for (int32_t i = 0; i < {made.size}; i++) {{", *read, f"    const int32_t c = i % {made.shape[-1]};",
            f"    const int64_t total = (int64_t){label}_factors[c] * {value} + {label}_offsets[c];",
            f"    y[i] = {self.stored(one, made, 'total', one.sums)};", "}",
        ]  # fmt: skip
        return tables, lines, f"; a factor and an offset for each channel, {one.to}"

    def _before(self, one: Any, given: Tensor) -> tuple[str, list[str]]:
        """Return the name of an input, and the lines that bring it into the word that is wanted."""
        if one.before is None:
            return "x[i]", []
        text = self.rounder.expression("given", (given.low, given.high), one.before, one.name)
        return "value", ["    const int64_t given = x[i];", f"    const int64_t value = {text};"]

    def add(self, one: ops.Add, _: list[Tensor], made: Tensor) -> Any:
        """Write a residual sum."""
        terms = [f"(int64_t){x}[i] * {integer(1 << shift)}" for x, shift in zip("ab", one.shifts, strict=True)]
        lines = [
            f"for (int32_t i = 0; i < {made.size}; i++) {{", f"    const int64_t total = {' + '.join(terms)};",
            f"    y[i] = {self.stored(one, made, 'total', one.sums)};", "}",
        ]  # fmt: skip
        return [], lines, f"; the exact sum {one.to}"

    def each(self, one: Any, given: list[Tensor], made: Tensor) -> Any:
        """Write what is done element by element."""
        kind = c_type(made.storage)
        tables: list[str] = []
        read: list[str] = []
        if isinstance(one, ops.ReLU):
            text = "x[i] > 0 ? x[i] : 0"
        elif isinstance(one, ops.Sign):
            text = "x[i] < 0 ? -1 : 1"
        elif isinstance(one, ops.Clamp):
            low = f"x[i] < {integer(one.low)} ? {integer(one.low)} : " if given[0].low < one.low else ""  # never else
            text = low + (f"x[i] > {integer(one.high)} ? {integer(one.high)} : x[i]" if given[0].high > one.high else "x[i]")
        elif isinstance(one, ops.LeakyReLU):
            to = Requantize(one.shift, Rounding.TIES_EVEN, Overflow.SATURATE, made.word_bits)
            read = ["    const int64_t given = x[i];"]
            text = f"given >= 0 ? given : {self.rounder.expression('given', (made.low, 0), to, one.name)}"
        else:
            value, read = self._before(one, given[0])
            label, last = self.label(one), len(one.table) - 1
            tables = [table(c_type(made.storage), f"{label}_table", one.table.tolist())]
            read += [f"    const int64_t place = (int64_t){value} - {integer(one.first)};"]
            text = f"{label}_table[{self.helpers('saturate')}(place, 0, {last})]"
        lines = [f"for (int32_t i = 0; i < {made.size}; i++) {{", *read, f"    y[i] = ({kind})({text});", "}"]
        return tables, lines, f"; {type(one).__name__}"


_WRITE: dict[type[Operation], Callable[..., Any]] = {
    ops.Dense: Inference.dense,
    ops.Conv2D: Inference.conv,
    ops.Scale: Inference.scale,
    ops.Add: Inference.add,
    ops.AveragePool: Inference.pool,
    ops.MaxPool: Inference.pool,
    **dict.fromkeys(_IN_PLACE, Inference.each),
}
