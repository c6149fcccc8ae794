"""The coordinate discrete gradient of all weights of the toy network, against evaluating the network twice a weight in NumPy.

    python benchmarks/gradients.py

NumPy computes in float32, the whole batch at once; its time for all weights is that of some of them times their share. Both may
use all cores.
"""

import argparse
import time


def forward(layers, inputs):
    """Return the outputs of a network of signs in float32: samples in rows."""
    import numpy as np

    for weights in layers[:-1]:
        inputs = np.where(inputs @ weights.T >= 0, np.float32(1), np.float32(-1))
    return inputs @ layers[-1].T


def measure(dim: int, samples: int, weights: int, epsilon: float) -> tuple[float, float, int, float]:
    """Return seconds of intnet and of NumPy for all weights, how many these are, and the cosine of the two gradients."""
    import numpy as np

    from intnet.gradients import CDG
    from intnet.studies.toy_gradients import cosine, draw_batch, toy

    target, network = toy("binary", dim, 0, 20)
    batch = draw_batch(target, samples, 0, 0)
    CDG(repr(epsilon), 2)(network, batch)  # compiled before it is timed
    start = time.perf_counter()
    found = CDG(repr(epsilon))(network, batch)
    ours = time.perf_counter() - start

    unit = float(network.weight_unit)
    shapes = list(zip(network.slices, network.sizes[:-1], network.sizes[1:], strict=True))
    layers = [(network.weights[one] * unit).reshape(n_out, n_in).astype(np.float32) for one, n_in, n_out in shapes]
    inputs = np.ascontiguousarray((batch.inputs.T / 2**12).astype(np.float32))
    targets = (batch.targets * float(network.output_unit)).astype(np.float32).reshape(-1, 1)
    chosen = np.random.default_rng(0).choice(network.weights.size, weights, replace=False)
    theirs = np.empty(weights)
    start = time.perf_counter()
    for number, i in enumerate(chosen):
        layer = next(k for k, one in enumerate(network.slices) if one.start <= i < one.stop)
        losses = []
        for sign in (1, -1):
            moved = [one.copy() for one in layers]
            moved[layer].reshape(-1)[i - network.slices[layer].start] += sign * np.float32(epsilon)
            losses.append(np.square(forward(moved, inputs) - targets).sum(dtype=np.float64))
        theirs[number] = (losses[0] - losses[1]) / (2 * epsilon)
    spent = (time.perf_counter() - start) / weights * network.weights.size
    return ours, spent, network.weights.size, cosine(np.concatenate(found.layers(network))[chosen], theirs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, default=32, help="inputs and hidden units (default: 32)")
    parser.add_argument("--samples", type=int, default=300_000, help="(default: 300000)")
    parser.add_argument("--weights", type=int, default=24, help="that NumPy is timed on (default: 24)")
    parser.add_argument("--epsilon", type=float, default=0.1, help="(default: 0.1)")
    arguments = parser.parse_args()
    from intnet import kernels

    ours, theirs, size, near = measure(arguments.dim, arguments.samples, arguments.weights, arguments.epsilon)
    print(f"{size} weights, {arguments.samples} samples, {kernels.threads()} threads")
    print(f"intnet {ours:.1f} s, NumPy float32 {theirs:.0f} s: cdg_vs_numpy {theirs / ours:.0f} (at least 10)")
    print(f"cosine of the two on the {arguments.weights} weights: {near:.6f}")


if __name__ == "__main__":
    main()
