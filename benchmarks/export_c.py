"""The C of trained networks against intnet: the same bits on test images, the size of the code, and multiply-adds a second.

    python benchmarks/export_c.py --data-dir DIR [--only mlp|lenet5] [--keep FOLDER]

Trains briefly on MNIST in fixed16 (the perceptron 3 epochs; LeNet-5 one, on 10,000 samples), writes C, and runs it compiled
with the sanitizer of undefined behaviour over 10,000 test images (LeNet-5: 1,000): every output must be intnet's. So must
the weights after 100 training steps of the perceptron. Then for 32-bit x86 and, by qemu, for an ARM, where there are compilers.
Times are those of one thread, the best of several rounds that take turns; intnet evaluates in batches of 1,000.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Werror")
SANITIZED = ("-O2", "-fsanitize=undefined", "-fno-sanitize-recover=all")
ROUNDS = 5
STEPS = 100
MAIN = """
#include <stdio.h>
#include <time.h>
#include "model.h"
static int16_t inputs[SAMPLES][MODEL_INPUTS], outputs[SAMPLES][MODEL_OUTPUTS];
int main(int count, char **names)
{
    FILE *file = count == 3 ? fopen(names[1], "rb") : 0;
    if (!file || fread(inputs, sizeof inputs, 1, file) != 1)
        return 1;
    fclose(file);
    clock_t start = clock();
    for (int i = 0; i < SAMPLES; i++)
        model_infer(inputs[i], outputs[i]);
    printf("%.9f", (double)(clock() - start) / CLOCKS_PER_SEC);
    file = fopen(names[2], "wb");
    return !file || fwrite(outputs, sizeof outputs, 1, file) != 1 || fclose(file);
}
"""
TRAIN = """
#include <stdio.h>
#include <time.h>
#include "model.h"
static int16_t inputs[MODEL_BATCH * MODEL_INPUTS];
static uint8_t labels[MODEL_BATCH];
static model_training t;
int main(int count, char **names)
{
    FILE *file = count == 3 ? fopen(names[1], "rb") : 0;
    double seconds = 0;
    uint32_t step = 0;
    if (!file)
        return 1;
    model_training_start(&t);
    while (fread(inputs, sizeof inputs, 1, file) == 1 && fread(labels, sizeof labels, 1, file) == 1) {
        clock_t start = clock();
        model_train_step(&t, inputs, labels, MODEL_BATCH, step++);
        seconds += (double)(clock() - start) / CLOCKS_PER_SEC;
    }
    printf("%.9f", seconds / step);
    fclose(file);
    file = fopen(names[2], "wb");
    return !file || fwrite(&t, sizeof t, 1, file) != 1 || fclose(file);
}
"""


def compiled(folder: Path, program: str, flags: tuple[str, ...], compiler: str = "gcc", main: str = "main.c") -> Path:
    """Compile the model and a main function."""
    command = [compiler, *WARNINGS, *flags, "model.c", main, "-o", program]
    subprocess.run(command, cwd=folder, check=True)
    return folder / program


def run(program: Path, samples: Path, runner: tuple[str, ...] = ()) -> tuple[float, bytes]:
    """Return the seconds that a program took, and what it wrote."""
    written = program.with_suffix(".out")
    done = subprocess.run([*runner, str(program), str(samples), str(written)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{program.name}: {done.stderr or done.returncode}")
    return float(done.stdout), written.read_bytes()


def trained(name: str, data_dir: str):
    """Return a network, briefly trained, the test images as it takes them, its trainer, and its accuracy."""
    import numpy as np

    from intnet import datasets
    from intnet.inputs import Encoder, Inputs
    from intnet.models import make_model
    from intnet.network import Network
    from intnet.optimizers import SGD
    from intnet.training import Trainer, evaluate

    data, test = (datasets.load("mnist", data_dir, subset=subset) for subset in ("train", "test"))
    network = Network(make_model(name), (28, 28, 1), "fixed16", seed=0)
    encoder = Encoder.of(data, network.recipe)
    inputs, tests = (Inputs.of(one, encoder) for one in (data, test))
    if name == "lenet5":
        inputs = Inputs(inputs.codes[:10_000], inputs.labels[:10_000], encoder, 10)
    start = time.perf_counter()
    trainer = Trainer(network, SGD("2^-3" if name == "mlp" else "2^-4"), inputs, epochs=3 if name == "mlp" else 1, batch=64)
    trainer.run()
    accuracy = evaluate(network, tests).accuracy
    print(
        f"\n## {name}\n\nTrained in {time.perf_counter() - start:.0f} s; {accuracy:.4f} of the 10,000 test images are right.\n"
    )
    samples = tests.batch(np.arange(10_000 if name == "mlp" else 1_000))
    return network, samples, trainer, (int(encoder.table.min()), int(encoder.table.max()))


def infer(name: str, data_dir: str, folder: Path) -> dict[str, object]:
    """Compare and time the inference of a network."""
    import numpy as np

    from intnet import kernels
    from intnet.export import program_of, write_c
    from intnet.layers import Step
    from intnet.tensor import QTensor

    network, samples, trainer, promise = trained(name, data_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "main.c").write_text(MAIN.replace("SAMPLES", str(len(samples.mantissa))))
    (folder / "samples").write_bytes(np.ascontiguousarray(samples.mantissa, np.int16).tobytes())
    expected = network.forward(samples).mantissa.astype(np.int16).tobytes()
    found: dict[str, object] = {"samples": len(samples.mantissa)}

    def same(what: str, made: bytes) -> None:
        if made != expected:
            raise SystemExit(f"{name}: {what} does not give the bits of intnet")
        print(f"- {what}: every output of {len(samples.mantissa)} images is intnet's, bit for bit")

    write_c(network, folder)
    same("gcc -O2 -fsanitize=undefined", run(compiled(folder, "checked", SANITIZED), folder / "samples")[1])
    adds = program_of(network).multiply_adds * len(samples.mantissa)
    for label, compiler, flags, runner in (
        ("gcc -m32 -O2 -fsanitize=undefined", "gcc", ("-m32", *SANITIZED), ()),
        ("arm-none-eabi-gcc -O2, an ARM Cortex-A7 by qemu", "arm-none-eabi-gcc",
         ("-O2", "-mcpu=cortex-a7", "--specs=rdimon.specs"), ("qemu-arm", "-cpu", "cortex-a7")),
    ):  # fmt: skip
        try:
            program = compiled(folder, f"cross{len(flags)}", flags, compiler)
            same(label, run(program, folder / "samples", runner)[1])
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"- {label}: not tried ({type(error).__name__})")
    programs = {}
    for promised in (None, promise):
        write_c(network, folder, inputs=promised)
        for level in ("-O2", "-O3", "-O3 -march=native"):
            label = f"C, gcc {level}{'' if promised is None else f', inputs {promised[0]}..{promised[1]}'}"
            programs[label] = compiled(folder, f"p{len(programs)}", tuple(level.split()))
            made = run(programs[label], folder / "samples")[1]
            if made != expected:
                raise SystemExit(f"{name}: {label} does not give the bits of intnet")
    subprocess.run(["gcc", *WARNINGS, "-O2", "-c", "model.c", "-o", "model.o"], cwd=folder, check=True)
    size = subprocess.run(["size", "model.o"], cwd=folder, capture_output=True, text=True, check=True).stdout
    text, data, bss = map(int, size.splitlines()[1].split()[:3])
    parameters = 2 * network.parameter_count
    print(f"- size of the object, gcc -O2: text {text} bytes (parameters in 16 bits: {parameters}), data {data}, bss {bss}")
    best = dict.fromkeys([*programs, "intnet"], float("inf"))
    step, threads = Step(seed=network.seed), kernels.threads()
    kernels.set_threads(1)
    for _ in range(ROUNDS):
        for label, program in programs.items():
            best[label] = min(best[label], run(program, folder / "samples")[0])
        start = time.process_time()
        for first in range(0, len(samples.mantissa), 1000):
            part = QTensor(samples.mantissa[first : first + 1000], samples.exponent, samples.format)
            network.forward(part, step)
        best["intnet"] = min(best["intnet"], time.process_time() - start)
    kernels.set_threads(threads)
    print("\n| one thread | us an image | 10^6 multiply-adds a second | of intnet's time |\n|---|---:|---:|---:|")
    for label, seconds in best.items():
        print(
            f"| {label} | {1e6 * seconds / len(samples.mantissa):.1f} | {adds / seconds / 1e6:.0f} | "
            f"{seconds / best['intnet']:.2f} |"
        )
    found.update(text=text, data=data, bss=bss, multiply_adds=adds / len(samples.mantissa), seconds=best)
    if name == "mlp":
        found["training"] = train(network, trainer, folder)
    return found


def train(network, trainer, folder: Path) -> dict[str, float]:
    """Compare and time training steps, from the trained weights on."""
    import numpy as np

    from intnet.export import write_c
    from intnet.layers import Step

    write_c(network, folder, optimizer=trainer.optimizer, batch=64, seed=trainer.seed)
    (folder / "train.c").write_text(TRAIN)
    order, rate = trainer.order(99), trainer.optimizer.schedule.at(0, 1)
    rows = [order[64 * number : 64 * number + 64] for number in range(STEPS)]
    with (folder / "batches").open("wb") as file:
        for one in rows:
            file.write(trainer.train.batch(one).mantissa.astype(np.int16).tobytes())
            file.write(trainer.train.labels[one].astype(np.uint8).tobytes())
    _, state = run(compiled(folder, "trained", SANITIZED, main="train.c"), folder / "batches")
    seconds = {}
    for level in ("-O2", "-O3"):
        program = compiled(folder, f"train{level}", (level,), main="train.c")
        runs = [run(program, folder / "batches") for _ in range(3)]
        seconds[f"C, gcc {level}"] = min(one for one, _ in runs)
        assert runs[0][1] == state
    start = time.process_time()
    for number, one in enumerate(rows):
        trainer.step(one, rate, Step(number, trainer.seed, True))
    seconds["intnet"] = (time.process_time() - start) / STEPS
    for parameter in network.parameters:
        if parameter.value.mantissa.astype(np.int16).tobytes() not in state:
            raise SystemExit(f"{parameter.name} does not have the bits of intnet after {STEPS} steps")
    print(f"\nAfter {STEPS} training steps every weight is intnet's. A step of 64 samples, CPU time:\n")
    for label, one in seconds.items():
        print(f"- {label}: {1e3 * one:.2f} ms")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default=os.environ.get("INTNET_DATA"), help="where MNIST is (default: $INTNET_DATA)")
    parser.add_argument("--only", choices=["mlp", "lenet5"], help="one of the networks")
    parser.add_argument("--keep", type=Path, help="a folder to keep the code in")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    arguments = parser.parse_args()
    if not arguments.data_dir or shutil.which("gcc") is None:
        raise SystemExit("error: name the folder of MNIST with --data-dir, and install gcc")
    version = subprocess.run(["gcc", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    print(f"{version}")
    found = {}
    with tempfile.TemporaryDirectory() as place:
        for name in [arguments.only] if arguments.only else ["mlp", "lenet5"]:
            found[name] = infer(name, arguments.data_dir, (arguments.keep or Path(place)) / name)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
