"""What tests of C code share: compiling it with every warning an error, and running it, sanitized or as a library."""

import ctypes
import functools
import shutil
import subprocess

import numpy as np
import pytest

FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Wno-sign-conversion", "-Werror", "-O2")
SANITIZED = ("-fsanitize=undefined", "-fno-sanitize-recover=all")
MEMORY = (*SANITIZED, "-fsanitize=address")
MAIN = """
#include <stdio.h>
#include "{name}.h"
int main(void)
{{
    static {given} input[{upper}_INPUTS];
    static {made} output[{upper}_OUTPUTS];
{scratch}    while (fread(input, sizeof input, 1, stdin) == 1) {{
        {name}_infer(input, output{argument});
        fwrite(output, sizeof output, 1, stdout);
    }}
    return 0;
}}
"""


TRAINING = """
#include <stdio.h>
#include "{name}.h"
static {name}_training memory;
static {kind} inputs[{upper}_BATCH * {upper}_INPUTS];
static {label} labels[{upper}_BATCH];
static {made} output[{upper}_OUTPUTS];
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
        {name}_training_infer(&memory, inputs, output);
        fwrite(output, sizeof output, 1, stdout);
{writes}    }}
    return 0;
}}
"""


def gcc(*arguments, folder):
    """Run gcc, or skip the test where there is none."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    done = subprocess.run(["gcc", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:3000]
    assert not done.stderr


@functools.cache
def compiles_for_32_bits():
    """Tell whether gcc makes programs of 32 bits that run here."""
    done = subprocess.run(
        "echo 'int main(void){return sizeof(void *) != 4;}' | gcc -m32 -xc - -o /tmp/intnet_m32.$$ && /tmp/intnet_m32.$$; "
        "s=$?; rm -f /tmp/intnet_m32.$$; exit $s", shell=True, capture_output=True, check=False,
    )  # fmt: skip
    return done.returncode == 0


def types_of(folder, name):
    """Return the C types of input and output that the header says."""
    head = (folder / f"{name}.h").read_text()
    line = next(line for line in head.splitlines() if line.startswith(f"void {name}_infer("))
    parts = line.replace("(", " ").replace(",", " ").split()
    return [part for part in parts if part.endswith("_t")][:2]


def run(folder, x, outputs, name="model", flags=SANITIZED, reentrant=False, runner=()):
    """Return what the code makes of samples, as int64 (samples, outputs)."""
    given, made = types_of(folder, name)
    scratch = f"    static {name}_scratch memory;\n" if reentrant else ""
    text = MAIN.format(name=name, upper=name.upper(), given=given, made=made, scratch=scratch,
                       argument=", &memory" if reentrant else "")  # fmt: skip
    (folder / "main.c").write_text(text)
    gcc(*FLAGS, *flags, f"{name}.c", "main.c", "-o", "program", folder=folder)
    data = np.ascontiguousarray(x, np.dtype(given[:-2])).tobytes()
    done = subprocess.run([*runner, str(folder / "program")], input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[:2000]
    return np.frombuffer(done.stdout, np.dtype(made[:-2])).reshape(-1, outputs).astype(np.int64)


def library(folder, name="model"):
    """Return the code as a library."""
    gcc(*FLAGS, "-fPIC", "-shared", f"{name}.c", "-o", f"{name}.so", folder=folder)
    return ctypes.CDLL(str(folder / f"{name}.so"))


def train(folder, steps, parameters, outputs, name="model", flags=SANITIZED):
    """Run steps, each ``(number, inputs, labels)``; yield after each the fields of the state, and the first sample's outputs.

    parameters: pairs of a field's name and its NumPy type and size.
    """
    head = (folder / f"{name}.h").read_text()
    line = next(line for line in head.splitlines() if line.startswith(f"void {name}_train_step("))
    kind, label = (part.split()[1] for part in line.split("(")[1].split(",")[1:3])
    made = types_of(folder, name)[1]
    writes = "".join(f"        fwrite(memory.{field}, sizeof memory.{field}, 1, stdout);\n" for field, _, _ in parameters)
    text = TRAINING.format(name=name, upper=name.upper(), kind=kind, label=label, made=made, writes=writes)
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
        state = {"outputs": np.frombuffer(done.stdout, np.dtype(made[:-2]), outputs, place)}
        place += state["outputs"].nbytes
        for field, dtype, size in parameters:
            state[field] = np.frombuffer(done.stdout, dtype, size, place)
            place += state[field].nbytes
        yield state
    assert place == len(done.stdout)
