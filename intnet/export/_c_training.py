"""A training step of dense layers in C99: forwards, the loss, backwards, and SGD, with every rounding of the recipe.

A sample goes forwards and backwards by itself, and its errors times its inputs are added to exact sums, a sum for each weight;
after the last, weights move. So memory does not grow with the batch, and the bits are those of the batch at once: sums are
exact, and random bits belong to (seed, stream, step, element), where the element counts through the batch.
"""

from dataclasses import dataclass
from typing import Any

from intnet import kernels
from intnet.errors import InputError
from intnet.export._c_arithmetic import Helpers, Rounder, Sums, c_type, integer, table
from intnet.export.operations import Accumulator, Pair, Requantize
from intnet.export.program import requantization
from intnet.formats import Fixed, Overflow, Rounding
from intnet.layers import Dense, Dropout, Flatten, Layer, Parameter, Quantizer, ReLU, Sequential
from intnet.losses import CrossEntropy, SquaredError
from intnet.network import Network
from intnet.optimizers.sgd import SGD, in_one_pass, rounding_in

SOFTMAX_BITS = 30  # fraction bits of the exact gradient of the cross-entropy
_ONE_PASS = 2**62  # what is within a rounding of an update stays below


@dataclass(frozen=True, eq=False)
class _Step:
    """A dense layer of a training step: what is known of it beside itself."""

    layer: Dense
    label: str
    clamped: bool  # a ReLU comes after it
    inputs: int
    outputs: int
    x_form: Fixed
    x_exponent: int


class Training:
    """Writes a training step.

    Parameters
    ----------
    network : Network
    optimizer : SGD
    batch : int
        Samples a step.
    seed : int
        Of the random bits.
    name : str
    helpers : Helpers
    weights : dict
        The constant arrays of the inference that hold a layer's weights, by the layer's name.
    """

    def __init__(
        self, network: Network, optimizer: SGD, batch: int, seed: int, name: str, helpers: Helpers, weights: dict[str, str]
    ) -> None:
        self.constant_weights = weights
        self.network, self.optimizer, self.batch, self.seed, self.name = network, optimizer, batch, seed, name
        self.helpers, self.rounder = helpers, Rounder(helpers)
        check_optimizer(network, optimizer, batch, seed)
        self.steps = self._layers()
        self.loss = self._loss()
        self.fields: list[str] = []
        self.tables: list[str] = []
        self.functions: list[str] = []
        self.starts: list[str] = []
        self._write()

    # What there is

    def _layers(self) -> list[_Step]:
        """Return the dense layers, or refuse what else there is."""
        flat: list[Layer] = []

        def walk(layer: Layer) -> None:
            if not isinstance(layer, Sequential):
                flat.append(layer)
                return
            for one in layer.layers:
                walk(one)

        walk(self.network.layers)
        steps: list[_Step] = []
        form = self.network.recipe.activation.format
        for number, layer in enumerate(flat):
            if type(layer) is Dense:
                after = flat[number + 1 :]
                dense = next((i for i, one in enumerate(after) if type(one) is Dense), len(after))
                clamped = any(type(one) is ReLU for one in after[:dense])
                outputs, inputs = layer.weight.shape
                assert isinstance(form, Fixed)
                label = f"dense_{len(steps) + 1}"
                steps.append(_Step(layer, label, clamped, inputs, outputs, form, -form.fraction_bits))
                form = layer.quantizers["activation"].format
                for role, quantizer in [*layer.quantizers.items(), *_of_parameters(layer)]:
                    if not isinstance(quantizer.format, Fixed):
                        raise InputError(
                            f"layer {layer.name!r} has its {role} in {quantizer.format}, and a training step in C is fixed "
                            f"point; use a format such as fxp-s16/13 for its {role}"
                        )
            elif type(layer) is not Flatten and not (type(layer) is ReLU and steps):
                more = "; train without dropout" if isinstance(layer, Dropout) else ""
                raise InputError(
                    f"layer {layer.name!r} ({type(layer).__name__}) has no training step in C, which takes Flatten, then Dense "
                    f"and ReLU{more}; export its inference alone, or a network of dense layers (models.mlp)"
                )
        if not steps:
            raise InputError("there is no dense layer to train; a training step in C takes Flatten, then Dense and ReLU")
        return steps

    def _loss(self) -> tuple[Requantize, Quantizer]:
        loss = self.network.loss
        if type(loss) not in (CrossEntropy, SquaredError):
            raise InputError(f"loss {loss.name!r} has no training step in C; use squared_error or cross_entropy")
        if not isinstance(loss.quantizer.format, Fixed):
            raise InputError(
                f"the error of the loss is in {loss.quantizer.format}; use a fixed-point format such as fxp-s16/13"
            )
        exponent = self._squared()[1] if isinstance(loss, SquaredError) else -SOFTMAX_BITS
        return requantization(loss.quantizer, exponent, training=True), loss.quantizer

    def _squared(self) -> tuple[list[int], int]:
        """Return the shifts of outputs and target, and the exponent of their difference."""
        form = self._made(self.steps[-1])
        shifts, exponent = kernels.alignment_of_one([-form.fraction_bits, 0], [form.word_bits, 2])
        if min(shifts) < 0 or max(shifts) > 60:
            raise InputError(f"outputs in {form} less 1 take more than 62 bits; use fewer fraction bits for the last layer")
        return shifts, exponent

    @staticmethod
    def _made(step: _Step) -> Fixed:
        form = step.layer.quantizers["activation"].format
        assert isinstance(form, Fixed)
        return form

    # Pieces

    def rounded(
        self, value: str, sums: Pair, quantizer: Quantizer, to: Requantize, source: str, element: str
    ) -> tuple[str, list[str]]:
        """Return a value rounded by a role in training, and the line that its random bits need, if they do."""
        bits = quantizer.role.random_bits
        draws = to.rounding is Rounding.STOCHASTIC and to.shift > 0
        function = "random_fraction" if bits <= 32 else "random_long_fraction"
        drawn = f"{self.helpers(function)}(&{source}, {element}, {bits})" if draws else "0"
        text = self.rounder.expression(value, sums, to, quantizer.tensor, (drawn, bits))
        return text, [f"random_source {source} = random_of({quantizer.stream}, step);"] if draws else []

    def _write(self) -> None:
        loss_to, loss_quantizer = self.loss
        forwards: list[str] = []
        evaluations: list[str] = []
        backwards: list[str] = []
        updates: list[str] = []
        zeros: list[str] = []
        previous: _Step | None = None
        for step in self.steps:
            label = step.label
            given = "x" if previous is None else f"t->{previous.label}_y"
            bias = "" if step.layer.bias is None else f"t->{label}_bias, "
            self.fields.append(f"{c_type(self._made(step).storage)} {label}_y[{step.outputs}];")
            arguments = f"_{label}(t->{label}_weight, {bias}{given}, t->{label}_y, "
            forwards.append(f"{self._forward(step)}{arguments}sample, step);")
            draws = step.layer.quantizers["activation"].role.rounding is Rounding.STOCHASTIC
            evaluations.append(f"{self._forward(step, evaluates=True) if draws else 'forward'}{arguments}0, 0);")
            error = self._error_after(step)
            self.fields.append(f"{c_type(error.storage)} {label}_error[{step.outputs}];")
            back = [self._gradient(step, error, given)]
            if previous is not None:
                self._backward(step, error, previous.clamped)
                back.append(
                    f"backward_{label}(t->{label}_weight, t->{label}_error, {given}, t->{previous.label}_error, sample, step);"
                )
            backwards[:0] = ["\n".join(back)]
            for parameter, part in _parameters(step.layer):
                zeros.append(f"for (int32_t i = 0; i < {parameter.size}; i++)\n    t->{label}_{part}_gradient[i] = 0;")
                updates.append(f"update_{label}_{part}(t, step);")
                self._update(step, parameter, part, error)
            previous = step
        assert previous is not None
        self._loss_function(previous, loss_to, loss_quantizer)
        loss = f"loss_gradient(t->{previous.label}_y, labels[sample], t->{previous.label}_error, sample, step);"
        self._step_function(zeros, [*forwards, loss, *backwards], updates)
        self._infer_function(evaluations)

    def _error_after(self, step: _Step) -> Fixed:
        """Return the format of the errors of a layer's outputs: of the next layer's inputs, or of the loss."""
        place = self.steps.index(step)
        last = place + 1 == len(self.steps)
        form = (self.network.loss.quantizer if last else self.steps[place + 1].layer.quantizers["error"]).format
        assert isinstance(form, Fixed)
        return form

    def _forward(self, step: _Step, evaluates: bool = False) -> str:
        """Write a forward pass, in training or in evaluation, where nothing is drawn; return the name of its kind."""
        prefix = "evaluate" if evaluates else "forward"
        layer, label = step.layer, step.label
        weights, quantizer = _form(layer.weight), layer.quantizers["activation"]
        exponent = step.x_exponent - weights.fraction_bits
        most = step.inputs << (weights.word_bits + step.x_form.word_bits - 2)
        added, lines, bias_type, moved = 0, [], "", None
        if layer.bias is not None:
            form = _form(layer.bias)
            to = Requantize(exponent + form.fraction_bits, Rounding.TIES_EVEN, Overflow.SATURATE, 63)
            added = 1 << (form.word_bits - 1 + max(0, -to.shift))
            text = self.rounder.expression("stored", (form.minimum, form.maximum), to, layer.name)
            lines = ["    const int64_t stored = bias[o];", f"    const int64_t moved = {text};"]
            bias_type, moved = f"const {c_type(form.storage)} *bias, ", "moved"
        sums = Sums((-most - added, most + added), _accumulator(layer), layer.name)
        begin, end = sums.finished("sum", moved, self.rounder)
        if sums.kind == "int32_t" and moved and begin != "0":
            begin = f"(int32_t){begin}"
        to = requantization(quantizer, exponent, training=not evaluates)
        element = f"(uint64_t)sample * {step.outputs} + (uint64_t)o"
        text, source = self.rounded("total", sums.held, quantizer, to, "of_outputs", element)
        kind, x_kind = c_type(quantizer.format.storage), c_type(step.x_form.storage)
        clamp = ["    if (y[o] < 0)", "        y[o] = 0;"] if step.clamped else []
        body = [
            *source, f"for (int32_t o = 0; o < {step.outputs}; o++) {{", *lines, f"    {sums.kind} sum = {begin};",
            "    int64_t total;", f"    for (int32_t i = 0; i < {step.inputs}; i++)",
            f"        sum += {sums.product(f'weight[o * {step.inputs} + i]', 'x[i]')};", f"    total = {end};",
            f"    y[o] = ({kind})({text});", *clamp, "}",
        ]  # fmt: skip
        self._function(
            f"{layer.name} forwards{' in evaluation' if evaluates else ''}: {step.inputs} -> {step.outputs}, {to}"
            f"{', then ReLU' if step.clamped else ''}",
            f"{prefix}_{label}(const {c_type(weights.storage)} *weight, {bias_type}const {x_kind} *x, {kind} *y, "
            "uint32_t sample, uint32_t step)", body, not source,
        )  # fmt: skip
        return prefix

    def _backward(self, step: _Step, error: Fixed, clamped: bool) -> None:
        layer, quantizer = step.layer, step.layer.quantizers["error"]
        weights = _form(layer.weight)
        exponent = -error.fraction_bits - weights.fraction_bits
        most = step.outputs << (weights.word_bits + error.word_bits - 2)
        sums = Sums((-most, most), _accumulator(layer), layer.name)
        begin, end = sums.finished("sum", None, self.rounder)
        to = requantization(quantizer, exponent, training=True)
        element = f"(uint64_t)sample * {step.inputs} + (uint64_t)i"
        text, source = self.rounded("total", sums.held, quantizer, to, "of_errors", element)
        kind = c_type(quantizer.format.storage)
        product = sums.product(f"weight[o * {step.inputs} + i]", "error[o]")
        # Where the ReLU before it gave zero no error passes, and none need be computed.
        skip = ["    if (x[i] <= 0) {", "        before[i] = 0;", "        continue;", "    }"] if clamped else []
        body = [
            *source, *([] if clamped else ["(void)x;"]), f"for (int32_t i = 0; i < {step.inputs}; i++) {{",
            f"    {sums.kind} sum = {begin};", "    int64_t total;", *skip,
            f"    for (int32_t o = 0; o < {step.outputs}; o++)", f"        sum += {product};", f"    total = {end};",
            f"    before[i] = ({kind})({text});", "}",
        ]  # fmt: skip
        self._function(
            f"{layer.name} backwards: errors of its {step.inputs} inputs from those of its {step.outputs} outputs, {to}",
            f"backward_{step.label}(const {c_type(weights.storage)} *weight, const {c_type(error.storage)} *error, const "
            f"{c_type(step.x_form.storage)} *x, {kind} *before, uint32_t sample, uint32_t step)", body, not source,
        )  # fmt: skip

    def _sums_of(self, step: _Step, part: str, error: Fixed) -> Sums:
        """Return how the gradient of a parameter is held: that of weights in the accumulator, that of biases exactly."""
        if part == "bias":
            most, word = self.batch << (error.word_bits - 1), Accumulator(64, Overflow.SATURATE)
        else:
            most, word = self.batch << (error.word_bits + step.x_form.word_bits - 2), _accumulator(step.layer)
        return Sums((-most, most), word, step.layer.name)

    def _gradient(self, step: _Step, error: Fixed, given: str) -> str:
        """Return the lines that add a sample's part to the gradients."""
        label = step.label
        sums = self._sums_of(step, "weight", error)
        lines = [f"for (int32_t o = 0; o < {step.outputs}; o++) {{"]
        if step.layer.bias is not None:
            lines.append(f"    t->{label}_bias_gradient[o] += t->{label}_error[o];")
        product = sums.product(f"t->{label}_error[o]", f"{given}[i]")
        lines += [
            f"    for (int32_t i = 0; i < {step.inputs}; i++)",
            f"        t->{label}_weight_gradient[o * {step.inputs} + i] += {product};", "}",
        ]  # fmt: skip
        return "\n".join(lines)

    def _loss_function(self, last: _Step, to: Requantize, quantizer: Quantizer) -> None:
        classes, form = last.outputs, self._made(last)
        element = f"(uint64_t)sample * {classes} + (uint64_t)c"
        if isinstance(self.network.loss, SquaredError):
            shifts, _ = self._squared()
            most = (1 << (form.word_bits - 1 + shifts[0])) + (1 << shifts[1])
            text, source = self.rounded("exact", (-most, most), quantizer, to, "of_errors", element)
            body = [
                *source, f"for (int32_t c = 0; c < {classes}; c++) {{",
                f"    const int64_t target = c == label ? {integer(1 << shifts[1])} : 0;",
                f"    const int64_t exact = (int64_t)y[c] * {integer(1 << shifts[0])} - target;",
            ]  # fmt: skip
        else:
            text, source = self.rounded("exact", (-(2**31), 2**31), quantizer, to, "of_errors", element)
            exponential = f"{self.helpers('exp_negative')}((int64_t)largest - y[c], {integer(-form.fraction_bits)})"
            body = [
                *source, f"int64_t shares[{classes}], sum = 0, given = 0;", f"{c_type(form.storage)} largest = y[0];",
                f"for (int32_t c = 1; c < {classes}; c++)", "    if (y[c] > largest)", "        largest = y[c];",
                f"for (int32_t c = 0; c < {classes}; c++) {{", f"    shares[c] = {exponential};", "    sum += shares[c];", "}",
                f"for (int32_t c = 0; c < {classes}; c++) {{",
                "    shares[c] = (shares[c] * (INT64_C(1) << 30) + (sum >> 1)) / sum;", "    given += shares[c];", "}",
                "shares[label] -= given;", f"for (int32_t c = 0; c < {classes}; c++) {{",
                "    const int64_t exact = shares[c];",
            ]  # fmt: skip
        body += [f"    error[c] = ({c_type(quantizer.format.storage)})({text});", "}"]
        self._function(
            f"the gradient of the loss {self.network.loss.name} by the outputs, {to}",
            f"loss_gradient(const {c_type(form.storage)} *y, int32_t label, {c_type(quantizer.format.storage)} *error, "
            "uint32_t sample, uint32_t step)", body, not source,
        )  # fmt: skip

    def _update(self, step: _Step, parameter: Parameter, part: str, error: Fixed) -> None:
        """Write the move of a parameter, its fields, and what it begins with."""
        label, optimizer = f"{step.label}_{part}", self.optimizer
        sums = self._sums_of(step, part, error)
        exponent = -error.fraction_bits + (step.x_exponent if part == "weight" else 0)
        decay, rate = optimizer._factors(parameter, optimizer.schedule.rate, self.batch)
        found = in_one_pass(optimizer, parameter, exponent, decay, rate)
        if found is None:
            raise InputError(
                f"{parameter.name}: its update takes more than 62 bits; use a rate, momentum and decay that are nearer to 1, "
                "or formats with fewer fraction bits"
            )
        factors, targets = found
        quantizers = rounding_in(optimizer, parameter)
        to = [
            Requantize(target.shift, one.role.rounding, one.role.overflow, one.format.word_bits)
            for target, one in zip(targets, quantizers, strict=True)
        ]
        stored = f"{label}_master" if parameter.master is not None else label
        within, place = (1 - _ONE_PASS, _ONE_PASS - 1), "(uint64_t)i"
        _, end = sums.finished(f"t->{label}_gradient[i]", None, self.rounder)
        text, sources = self.rounded("exact", sums.held, quantizers[0], to[0], "of_gradient", place)
        body = [
            f"    const int64_t exact = {end};",
            f"    const int64_t gradient = {text};",
            f"    const int64_t weight = t->{stored}[i];",
        ]
        self._field(label, parameter.value, self.constant_weights[step.layer.name] if part == "weight" else None)
        if optimizer.momentum.mantissa:
            form = quantizers[1].format
            self.fields.append(f"{c_type(form.storage)} {label}_momentum[{parameter.size}];")
            terms = [("velocity", factors.momentum), ("gradient", factors.gradient), ("weight", factors.decay)]
            sum_text = " + ".join(f"{integer(factor)} * {name}" for name, factor in terms if factor)
            text, more = self.rounded("sum", within, quantizers[1], to[1], "of_momentum", place)
            body += [
                f"    const int64_t velocity = t->{label}_momentum[i];", f"    const int64_t sum = {sum_text};",
                f"    const int64_t move = {text};", f"    t->{label}_momentum[i] = ({c_type(form.storage)})move;",
                f"    const int64_t moved = {integer(factors.weight)} * weight - {integer(factors.rate)} * move;",
            ]  # fmt: skip
            sources += more
            begins = "0"
            if parameter.momentum is not None:
                self.tables.append(
                    table(c_type(form.storage), f"{label}_momentum", parameter.momentum.mantissa.reshape(-1).tolist())
                )
                begins = f"{label}_momentum[i]"
            self._start(f"{label}_momentum", parameter.size, begins)
        else:
            factor = integer(factors.weight - factors.decay)
            body += [f"    const int64_t moved = {factor} * weight - {integer(factors.rate)} * gradient;"]
        text, more = self.rounded("moved", within, quantizers[-1], to[-1], "of_stored", place)
        body.append(f"    t->{stored}[i] = ({c_type(quantizers[-1].format.storage)})({text});")
        sources += more
        if parameter.master is not None:
            self._field(stored, parameter.master)
            rounds, form = parameter.quantizers["weight"], _form(parameter)
            master = quantizers[-1].format
            assert isinstance(master, Fixed)
            final = requantization(rounds, -master.fraction_bits, training=True)
            text, more = self.rounded("kept", (master.minimum, master.maximum), rounds, final, "of_weight", place)
            body += [f"    const int64_t kept = t->{stored}[i];", f"    t->{label}[i] = ({c_type(form.storage)})({text});"]
            sources += more
        self.fields.append(f"{sums.kind} {label}_gradient[{parameter.size}];")
        lines = [*sources, f"for (int32_t i = 0; i < {parameter.size}; i++) {{", *body, "}"]
        said = "; ".join(f"{one.role_name} {how}" for one, how in zip(quantizers, to, strict=True))
        self._function(
            f"{parameter.name}: {said}", f"update_{label}({self.name}_training *t, uint32_t step)", lines, not sources, False
        )

    def _field(self, label: str, tensor: Any, constant: str | None = None) -> None:
        """Write a field with a tensor's integers, and that it begins with them, which a constant array may hold already."""
        kind, values = c_type(tensor.mantissa.dtype), tensor.mantissa.reshape(-1).tolist()
        self.fields.append(f"{kind} {label}[{len(values)}];")
        if constant is None:
            self.tables.append(table(kind, f"{label}_start", values))
        self._start(label, len(values), f"{constant or f'{label}_start'}[i]")

    def _start(self, label: str, count: int, value: str) -> None:
        self.starts.append(f"for (int32_t i = 0; i < {count}; i++)\n    t->{label}[i] = {value};")

    def _function(self, comment: str, head: str, body: list[str], unused: bool, sample: bool = True) -> None:
        lines = [*(["(void)sample;"] if unused and sample else []), *(["(void)step;"] if unused else []), *body]
        declared = [line for line in lines if line.startswith("random_source")]
        lines = declared + [line for line in lines if line not in declared]
        text = "\n".join(f"    {line}" for line in lines)
        self.functions.append(f"/* {comment} */\nstatic void {head}\n{{\n{text}\n}}")

    def _step_function(self, zeros: list[str], a_sample: list[str], updates: list[str]) -> None:
        kind = c_type(self.steps[0].x_form.storage)
        label = "uint8_t" if self.steps[-1].outputs <= 256 else "uint16_t"
        name, upper = self.name, self.name.upper()
        self.start_head = f"void {name}_training_start({name}_training *t)"
        self.step_head = (
            f"void {name}_train_step({name}_training *t, const {kind} *inputs, const {label} *labels, uint32_t samples, "
            "uint32_t step)"
        )
        self.functions.append(f"{self.start_head}\n{{\n{_indented(self.starts, 1)}\n}}")
        self.functions.append(
            f"{self.step_head}\n{{\n{_indented(zeros, 1)}\n    for (uint32_t sample = 0; sample < samples; sample++) {{\n"
            f"        const {kind} *x = inputs + (uint64_t)sample * {upper}_INPUTS;\n{_indented(a_sample, 2)}\n    }}\n"
            f"{_indented(updates, 1)}\n}}"
        )

    def _infer_function(self, evaluations: list[str]) -> None:
        last, name, upper = self.steps[-1], self.name, self.name.upper()
        kinds = c_type(self.steps[0].x_form.storage), c_type(self._made(last).storage)
        result = f"{kinds[1]} output[{upper}_OUTPUTS]"
        self.infer_head = f"void {name}_training_infer({name}_training *t, const {kinds[0]} x[{upper}_INPUTS], {result})"
        self.functions.append(
            f"{self.infer_head}\n{{\n{_indented(evaluations, 1)}\n    for (int32_t o = 0; o < {last.outputs}; o++)\n"
            f"        output[o] = t->{last.label}_y[o];\n}}"
        )

    def header(self) -> str:
        """Return what the header says of it."""
        upper, optimizer = self.name.upper(), self.optimizer
        fields = "".join(f"    {field}\n" for field in self.fields)
        said = f"SGD, rate {optimizer.schedule.rate}, momentum {optimizer.momentum}, decay {optimizer.decay}"
        return (
            f"/* A training step: {self.network.loss.name}, {said}.\n   Weights, what the optimizer keeps, and what a step "
            f"needs: no other memory is used. */\n#define {upper}_BATCH {self.batch}\n"
            f"typedef struct {{\n{fields}}} {self.name}_training;\n\n"
            f"/* Begin with the weights of this file. */\n{self.start_head};\n\n"
            f"/* Train on up to {upper}_BATCH samples, one after the other in `inputs`, of the classes `labels`; `step`\n"
            "   counts from 0 and decides, with the seed, all random bits. A batch that is not full counts by its samples. */\n"
            f"{self.step_head};\n\n"
            f"/* The outputs of one sample by the weights as they now are, as in evaluation. */\n{self.infer_head};"
        )

    def constants(self) -> str:
        """Return the definitions that the helpers need."""
        return f"#define SEED_LOW UINT32_C({self.seed & 0xFFFFFFFF})\n#define SEED_HIGH UINT32_C({self.seed >> 32})"


def check_optimizer(network: Network, optimizer: Any, batch: int, seed: int) -> None:
    """Refuse what has no training step in C."""
    if type(optimizer) is not SGD:
        raise InputError(f"a training step in C is SGD's, got {type(optimizer).__name__}; use intnet.SGD")
    if optimizer.schedule.kind != "constant":
        raise InputError(
            f"a training step in C has one rate, got {optimizer.schedule}; write one file for each rate, with SGD of that rate"
        )
    for what, value, low, high in (("batch", batch, 1, 2**24), ("seed", seed, 0, 2**64 - 1)):
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise InputError(f"{what} must be an integer in {low}..{high}, got {value!r}")
    if network.recipe.update != "sgd":
        raise InputError(
            f"recipe {network.recipe.name!r} has {network.recipe.update} updates, and a training step in C those of SGD; use "
            "update='sgd'"
        )
    optimizer.check(network.recipe, 1, batch, 1)
    for parameter in network.parameters:
        if parameter.mask is not None:
            raise InputError(
                f"{parameter.name} has a mask, which a training step in C does not hold; release it, or export inference"
            )


def _accumulator(layer: Dense) -> Accumulator:
    return Accumulator(layer.recipe.accumulator_bits, layer.recipe.accumulator_overflow)


def _form(parameter: Parameter) -> Fixed:
    form = parameter.quantizers["weight"].format
    assert isinstance(form, Fixed)
    return form


def _parameters(layer: Dense) -> list[tuple[Parameter, str]]:
    return [(layer.weight, "weight"), *([(layer.bias, "bias")] if layer.bias is not None else [])]


def _of_parameters(layer: Dense) -> list[tuple[str, Quantizer]]:
    return [entry for parameter, _ in _parameters(layer) for entry in parameter.quantizers.items()]


def _indented(blocks: list[str], depth: int) -> str:
    return "\n".join("    " * depth + line for block in blocks for line in block.splitlines())
