"""The studies of gradient estimators, read: means over seeds, sentences, files."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from intnet import files
from intnet.studies.rosenbrock import RosenbrockRow
from intnet.studies.thin_resnet import ThinResNetRow
from intnet.studies.toy_gradients import LAYERS, CosineRow, DecreaseRow, SignsRow

REPORTED = {
    ("binary", 0.1): (0.8934, 0.8968, 0.9629, 0.9046),
    ("binary", 0.01): (0.8468, 0.8430, 0.9488, 0.9205),
    ("ternary", 0.1): (0.9653, 0.9874, 0.9933, 0.9747),
    ("ternary", 0.01): (0.9586, 0.9841, 0.9945, 0.9672),
    ("2bit", 0.1): (0.9752, 0.9755, 0.9847, 0.9747),
    ("2bit", 0.01): (0.9009, 0.9419, 0.9516, 0.9303),
    ("full", 0.1): (1.0, 1.0, 1.0, 1.0),
    ("full", 0.01): (1.0, 1.0, 1.0, 1.0),
}
"""Cosines of the vanilla straight-through estimator that the notes report: fc1, fc2, fc3, total; one pair of networks."""


def cosine_means(rows: Sequence[CosineRow]) -> dict[tuple[str, float, str, int], dict[str, float]]:
    """Return means over seeds by activation, epsilon, estimator and samples, and by layer."""
    groups: dict[tuple[str, float, str, int], dict[str, list[float]]] = {}
    for row in rows:
        key = (row.activation, row.epsilon, row.estimator, row.samples)
        groups.setdefault(key, {}).setdefault(row.layer, []).append(row.cosine)
    return {key: {layer: fmean(some) for layer, some in by.items()} for key, by in groups.items()}


def describe_rosenbrock(rows: Sequence[RosenbrockRow]) -> list[str]:
    """Say where each schedule ends."""
    names = dict.fromkeys(row.schedule for row in rows)
    ends = {name: [row for row in rows if row.schedule == name] for name in names}
    return [
        f"{name.capitalize()} rate and epsilon: {some[-1].loss:.3g} after {some[-1].step:,} steps, the least "
        f"{min(row.loss for row in some):.3g}."
        for name, some in ends.items()
    ]


def describe_cosines(rows: Sequence[CosineRow]) -> list[str]:
    """Say the means by layer, and what the notes report."""
    sentences = []
    for (activation, epsilon, estimator, samples), by in cosine_means(rows).items():
        ours = ", ".join(f"{layer} {by[layer]:.4f}" for layer in (*LAYERS, "total"))
        reported = REPORTED.get((activation, epsilon)) if estimator == "vanilla" else None
        beside = f" (reported: {', '.join(f'{one:.4f}' for one in reported)})" if reported else ""
        sentences.append(f"{activation}, {estimator}, epsilon {epsilon:g}, {samples:,} samples: {ours}{beside}.")
    return sentences


def describe_decrease(rows: Sequence[DecreaseRow], rate: float = 0.1) -> list[str]:
    """Say the mean decrease at one rate, and the best over rates, of every estimator."""
    from intnet.plotting.gradients import means

    sentences = []
    for (dim, trained, estimator, samples, hyper), curve in means(rows).items():
        best = max(curve, key=curve.__getitem__)
        at = f"{curve[rate]:+.4f} at rate {rate:g}, " if rate in curve else ""
        some = f", {samples:,} samples" if samples else ""
        of = f", {hyper:g}" if hyper else ""
        when = "trained" if trained else "fresh"
        sentences.append(f"dim {dim}, {when}, {estimator}{of}{some}: {at}best {curve[best]:+.4f} at {best:g}.")
    return sentences


def describe_signs(rows: Sequence[SignsRow]) -> list[str]:
    """Say the means over batches: before, by plain STE, and by stochastic activations."""
    sentences = []
    for trained in sorted({row.pretrained for row in rows}):
        some = [row for row in rows if row.pretrained == trained]
        before = fmean(row.loss_before for row in some)
        by = {n: fmean(row.best_loss for row in some if row.averaged == n) for n in sorted({row.averaged for row in some})}
        listed = ", ".join(f"{n}: {loss:.4f}" for n, loss in by.items() if n)
        plain = f"{by[0]:.4f}" if 0 in by else "none"
        sentences.append(
            f"{'After training' if trained else 'Fresh'}: loss {before:.4f}; best after a step by STE {plain}, by stochastic "
            f"activations, so many averaged, {listed}."
        )
    return sentences


def best_decreases(rows: Sequence[ThinResNetRow]) -> dict[tuple[str, int, str, float], list[tuple[float, float]]]:
    """Return the greatest decrease over rates, with its rate, of every batch; by weights, layer, estimator and epsilon."""
    curves: dict[tuple[str, int, str, float], dict[int, list[tuple[float, float]]]] = {}
    for row in rows:
        key = (row.weights, row.layer, row.estimator, row.epsilon)
        curves.setdefault(key, {}).setdefault(row.batch, []).append((row.decrease, row.rate))
    return {key: [max(by[batch]) for batch in sorted(by)] for key, by in curves.items()}


def describe_thin_resnet(rows: Sequence[ThinResNetRow]) -> list[str]:
    """Say the best decreases of every layer by every estimator, a batch each, and the mean cosine to the STE's direction."""
    sentences = []
    for (weights, layer, estimator, epsilon), best in best_decreases(rows).items():
        some = [
            row for row in rows if (row.weights, row.layer, row.estimator, row.epsilon) == (weights, layer, estimator, epsilon)
        ]
        before = fmean(row.loss_before for row in some)
        flips = weights == "binary" and estimator == "cdg" and not epsilon
        of = ", all signs" if flips else f", epsilon {epsilon:g}" if estimator == "cdg" else ""
        listed = ", ".join(f"{decrease:+.4f} at {rate:g}" for decrease, rate in best)
        near = f"; cosine to STE {fmean(row.cosine for row in some):.3f}" if estimator != "ste" else ""
        sentences.append(f"{weights} weights, convolution {layer}, {estimator}{of}: loss {before:.4f}, best {listed}{near}.")
    return sentences


def export(study: str, rows: Sequence[Any], folder: Path | str, *, plots: bool = True) -> list[str]:
    """Write the findings and the pictures of a study, and return the sentences."""
    folder = Path(folder)
    describe = {
        "rosenbrock": describe_rosenbrock,
        "cosine": describe_cosines,
        "loss-decrease": describe_decrease,
        "stochastic-rounding": describe_signs,
        "thin-resnet": describe_thin_resnet,
    }[study]
    sentences = describe(rows)  # type: ignore[operator]
    name = study.replace("-", "_")
    files.write_changed(folder / f"{name}.json", (json.dumps({"findings": sentences}, indent=2) + "\n").encode())
    if plots and rows:
        from intnet import plotting

        pictures: dict[str, Any] = {}
        if study == "rosenbrock":
            pictures["rosenbrock.png"] = plotting.plot_rosenbrock(rows)
        elif study == "cosine":
            pictures["cosine.png"] = plotting.plot_cosines(rows)
        elif study == "stochastic-rounding":
            pictures["stochastic_rounding.png"] = plotting.plot_signs(rows)
        elif study == "thin-resnet":
            pictures["thin_resnet.png"] = plotting.plot_thin_resnet(rows)
        else:
            pictures["best.png"] = plotting.plot_best(rows)
            for trained in sorted({row.pretrained for row in rows}):
                pictures["decrease-trained.png" if trained else "decrease.png"] = plotting.plot_decrease(
                    rows, pretrained=trained
                )
        for file, figure in pictures.items():
            files.write_atomically(folder / file, partial(figure.savefig, dpi=150))
    return sentences
