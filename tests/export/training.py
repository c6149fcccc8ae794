"""Training in C beside intnet's: a program that trains steps from a file, and what it leaves."""

import subprocess

import numpy as np
from compiled import FLAGS, SANITIZED, gcc

MAIN = """
#include <stdio.h>
#include "{name}.h"
static {name}_training memory;
static {kind} inputs[{upper}_BATCH * {upper}_INPUTS];
static {label} labels[{upper}_BATCH];
int main(void)
{{
    uint32_t head[2];
    {name}_training_start(&memory);
    while (fread(head, sizeof head, 1, stdin) == 1) {{
        if (fread(inputs, sizeof inputs[0] * {upper}_INPUTS, head[0], stdin) != head[0])
            return 1;
        if (fread(labels, sizeof labels[0], head[0], stdin) != head[0])
            return 1;
        {name}_train_step(&memory, inputs, labels, head[0], head[1]);
{writes}    }}
    return 0;
}}
"""


def train(folder, steps, parameters, name="model", flags=SANITIZED):
    """Run steps, each ``(number, inputs, labels)``; yield after each the fields of the state, by name.

    parameters: pairs of a field's name and its NumPy type and size.
    """
    head = (folder / f"{name}.h").read_text()
    line = next(line for line in head.splitlines() if line.startswith(f"void {name}_train_step("))
    kind, label = (part.split()[1] for part in line.split("(")[1].split(",")[1:3])
    writes = "".join(f"        fwrite(memory.{field}, sizeof memory.{field}, 1, stdout);\n" for field, _, _ in parameters)
    text = MAIN.format(name=name, upper=name.upper(), kind=kind, label=label, writes=writes)
    (folder / "train.c").write_text(text)
    gcc(*FLAGS, *flags, f"{name}.c", "train.c", "-o", "train", folder=folder)
    data = b"".join(
        np.array([len(y), number], np.uint32).tobytes() + np.ascontiguousarray(x, np.dtype(kind[:-2])).tobytes()
        + np.ascontiguousarray(y, np.dtype(label[:-2])).tobytes()
        for number, x, y in steps
    )  # fmt: skip
    done = subprocess.run([str(folder / "train")], input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[:2000]
    place = 0
    for _ in steps:
        state = {}
        for field, dtype, size in parameters:
            state[field] = np.frombuffer(done.stdout, dtype, size, place)
            place += state[field].nbytes
        yield state
    assert place == len(done.stdout)
