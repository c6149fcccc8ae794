"""The C sources beside golden vectors, and a program that holds one against the other."""

from pathlib import Path
from typing import Any

from intnet import export, files
from intnet.errors import InputError
from intnet.export import Trace
from intnet.network import Network
from intnet.optimizers import SGD

FOLDER = "c"

_CHECK = """/* Holds model.c against the vectors: {samples} samples of {inputs} words, their {outputs} outputs.

   From the folder above:  gcc -std=c99 -Wall -Wextra -O2 -o check c/check.c c/model.c && ./check
*/
#include <stdio.h>

#include "model.h"

/* The next word of a vector file, in two's complement of so many bits; comments are skipped. */
static int next_word(FILE *file, int bits, int64_t *value)
{{
    char line[256];
    unsigned long long word;
    while (fgets(line, sizeof line, file)) {{
        if (line[0] == '/' || sscanf(line, "%llx", &word) != 1)
            continue;
        *value = (int64_t)word;
        if (word >> (bits - 1) & 1)
            *value -= (int64_t)1 << bits;
        return 1;
    }}
    return 0;
}}

int main(void)
{{
    static {input_type} input[MODEL_INPUTS];
    static {output_type} output[MODEL_OUTPUTS];
    FILE *inputs = fopen("vectors/input.mem", "r"), *outputs = fopen("vectors/{last}.mem", "r");
    int64_t value;
    int sample, i;
    if (!inputs || !outputs) {{
        puts("FAIL: run this in the folder that holds vectors/");
        return 1;
    }}
    for (sample = 0; sample < {samples}; sample++) {{
        for (i = 0; i < MODEL_INPUTS; i++) {{
            if (!next_word(inputs, MODEL_INPUT_BITS, &value)) {{
                puts("FAIL: vectors/input.mem ends early");
                return 1;
            }}
            input[i] = ({input_type})value;
        }}
        model_infer(input, output);
        for (i = 0; i < MODEL_OUTPUTS; i++) {{
            if (!next_word(outputs, MODEL_OUTPUT_BITS, &value) || output[i] != value) {{
                printf("FAIL: sample %d, output %d\\n", sample, i);
                return 1;
            }}
        }}
    }}
    printf("PASS: %d samples agree\\n", sample);
    return 0;
}}
"""

_README = """
## C (`c/`)

    gcc -std=c99 -Wall -Wextra -O2 -o check c/check.c c/model.c && ./check

ends with PASS, or FAIL and exit code 1: `model_infer` takes the words of a sample of `vectors/input.mem`, and gives those of
`vectors/{last}.mem`. `c/model.h` says the rest; nothing but <stdint.h> is needed, no heap and no floats.
"""

_TRAINING = """\
`model_training_start(t)` and `model_train_step(t, inputs, labels, samples, step)` train from these weights on, as the traced
steps (`traces/steps.npz`) do: inputs are `stepN/input` there, labels and step numbers too.
"""


def write(network: Network, inference: Trace, optimizer: SGD, batch: int, seed: int, folder: Path) -> dict[str, str]:
    """Write the sources into ``folder / "c"``, with a training step if there can be one; return what is not there, and why.

    Parameters
    ----------
    network : Network
        As it was traced.
    inference : Trace
        What `check.c` compares with.
    optimizer, batch, seed
        Of the traced steps.
    folder : path
    """
    skipped, where = {}, folder / FOLDER
    try:
        export.write_c(network, where, optimizer=optimizer, batch=batch, seed=seed)
    except InputError as error:
        skipped["the training step in C"] = str(error)
        try:
            export.write_c(network, where)
        except InputError as reason:
            if where.is_dir() and not any(where.iterdir()):
                where.rmdir()
            return {"C": str(reason)}
    files.write_changed(where / "check.c", _check(inference).encode())
    return skipped


def _ends(inference: Trace) -> tuple[Any, str, Any]:
    """Return the input, the name of the last layer's outputs, and these."""
    keys = [key for key in inference if key.endswith("/forward")]
    return inference["inference/input"], keys[-1].removeprefix("inference/").replace("/", "."), inference[keys[-1]]


def _check(inference: Trace) -> str:
    first, last, outputs = _ends(inference)
    samples = first.shape[0]
    return _CHECK.format(
        samples=samples, inputs=first.mantissa.size // samples, outputs=outputs.mantissa.size // samples, last=last,
        input_type=f"{first.format.storage}_t", output_type=f"{outputs.format.storage}_t",
    )  # fmt: skip


def readme(folder: Path, inference: Trace | None) -> str:
    """Return what a README says of the sources; nothing if there are none."""
    header = folder / FOLDER / "model.h"
    if inference is None or not header.is_file():
        return ""
    trains = "model_train_step" in header.read_text(encoding="utf-8")
    return _README.format(last=_ends(inference)[1]) + (f"\n{_TRAINING}" if trains else "")
