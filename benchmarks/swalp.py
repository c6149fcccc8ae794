"""One training step of the published networks at full size: how long it takes, and how much memory.

    python benchmarks/swalp.py

VGG16 and PreResNet-164 in SWALP's 8 bits, batch 128, on images of noise, as neither time nor memory depends on what they show.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

MODELS = ("vgg", "preresnet")


def measure(model: str, recipe: str, steps: int, batch: int, device: str) -> dict[str, float]:
    import numpy as np

    from intnet import kernels
    from intnet.formats import BlockFloat
    from intnet.inputs import ArrayInputs
    from intnet.layers import Step
    from intnet.network import Network
    from intnet.studies.swalp import NetworkSpec
    from intnet.tensor import quantize
    from intnet.training import Trainer

    spec = NetworkSpec(model, recipes=(recipe,), width=1, depth=164 if model == "preresnet" else None, epochs=3)
    network = Network(spec.layers(10), (32, 32, 3), recipe)
    form = network.recipe.activation.format
    form = BlockFloat(form.word_bits) if isinstance(form, BlockFloat) else form
    images = quantize(np.random.default_rng(0).normal(size=(batch, 32, 32, 3)), form)
    inputs = ArrayInputs(images, np.arange(batch) % 10, 10)
    trainer = Trainer(network, spec.optimizer(0), inputs, epochs=3, batch=batch, device=device)
    rows, rate, seconds = np.arange(batch), trainer.optimizer.schedule.at(0, 3), []
    for number in range(steps + 1):
        start = time.perf_counter()
        trainer.step(rows, rate, Step(number, 0, True))
        seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
    trainer.optimizer.average.add(network.parameters)
    averaging = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "parameters": network.parameter_count,
        "threads": kernels.threads(),
        "first_step_s": seconds[0],
        "step_s": float(np.median(seconds[1:])),
        "average_s": averaging,
        "peak_GiB": peak / 2**30,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="bfp8-mixed", help="(default: bfp8-mixed)")
    parser.add_argument("--steps", type=int, default=3, help="steps after the first, which compiles and allocates (default: 3)")
    parser.add_argument("--batch", type=int, default=128, help="(default: 128)")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--model", choices=MODELS, help="in this process, as JSON; by default each in a process of its own")
    arguments = parser.parse_args()
    if arguments.model:
        print(json.dumps(measure(arguments.model, arguments.recipe, arguments.steps, arguments.batch, arguments.device)))
        return
    print("| model | parameters | threads | first step, s | step, s | averaging once, s | peak memory, GiB |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for model in MODELS:
        command = [sys.executable, __file__, *sys.argv[1:], "--model", model]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        numbers = f"{found['first_step_s']:.1f} | {found['step_s']:.2f} | {found['average_s']:.2f} | {found['peak_GiB']:.2f}"
        print(f"| {model} | {found['parameters']:,} | {found['threads']} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
