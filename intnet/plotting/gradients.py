"""Pictures of gradient estimators for binary activations: how far a step lowers the loss, and which way an estimator points."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from intnet.errors import InputError

_LAYERS = ("fc1", "fc2", "fc3", "total")
_ACTIVATIONS = ("binary", "ternary", "2bit", "full")
_ESTIMATORS = ("vanilla", "polynomial", "steep", "swish")


def _figure(rows: Sequence[Any], shape: tuple[int, int], size: tuple[float, float]) -> tuple[Figure, Any]:
    if not rows:
        raise InputError("there is no row to draw; run the study first")
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(*shape, squeeze=False)


def _dress(ax: Axes) -> None:
    ax.grid(color="0.92")
    ax.set_axisbelow(True)


def _legend(figure: Figure, axes: Any, **where: Any) -> None:
    """Draw one legend of what is in any panel."""
    handles = {label: handle for ax in axes.flat for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(list(handles.values()), list(handles), frameon=False, **where)


def plot_rosenbrock(rows: Sequence[Any]) -> Figure:
    """Draw the Rosenbrock function against the step, a line a schedule.

    Parameters
    ----------
    rows : sequence of intnet.studies.rosenbrock.RosenbrockRow
    """
    figure, ((ax,),) = _figure(rows, (1, 1), (7.2, 4.6))
    for number, name in enumerate(dict.fromkeys(row.schedule for row in rows)):
        some = [row for row in rows if row.schedule == name]
        ax.plot([row.step for row in some], [row.loss for row in some], color=f"C{number}", label=f"{name} rate and epsilon")
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(numticks=10))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.set(xlabel="step", ylabel="f(x)", title="Rosenbrock function of 50 pairs, normalized coordinate differences")
    ax.legend(frameon=False)
    _dress(ax)
    return figure


def plot_cosines(rows: Sequence[Any]) -> Figure:
    """Draw the cosine to coordinate differences by layer, a panel an epsilon and number of samples: means and deviations.

    Parameters
    ----------
    rows : sequence of intnet.studies.toy_gradients.CosineRow
    """
    panels = sorted({(row.epsilon, row.samples) for row in rows}, key=lambda one: (-one[1], -one[0]))
    columns = min(2, max(1, len(panels)))
    shape = (-(-max(1, len(panels)) // columns), columns)
    figure, axes = _figure(rows, shape, (1.0 + 4.9 * shape[1], 1.2 + 3.4 * shape[0]))
    present = {(row.activation, row.estimator) for row in rows}
    names = [(a, e) for a in _ACTIVATIONS for e in _ESTIMATORS if (a, e) in present]
    for ax in axes.flat[len(panels) :]:
        ax.remove()
    for ax, (epsilon, samples) in zip(axes.flat, panels, strict=False):
        for number, (activation, estimator) in enumerate(names):
            groups = [
                [
                    row.cosine
                    for row in rows
                    if (row.activation, row.estimator, row.layer, row.epsilon, row.samples)
                    == (activation, estimator, layer, epsilon, samples)
                ]
                for layer in _LAYERS
            ]
            if not all(groups):
                continue
            means = [float(np.mean(group)) for group in groups]
            spreads = [float(np.std(group)) for group in groups]
            at = np.arange(len(_LAYERS)) + 0.11 * (number - (len(names) - 1) / 2)
            label = activation if activation != "binary" else f"binary, {estimator}"
            ax.errorbar(at, means, spreads, fmt="o", clip_on=False, markersize=5, capsize=2, color=f"C{number}", label=label)
        for edge in np.arange(len(_LAYERS) - 1) + 0.5:
            ax.axvline(edge, color="0.85", linewidth=0.8)
        ax.set_xticks(range(len(_LAYERS)), _LAYERS)
        ax.set(title=rf"$\epsilon$ = {epsilon:g}, {samples:,} samples", xlabel="layer", ylabel="cosine to CDG")
        ax.set_ylim(top=1.01)
        ax.grid(axis="y", color="0.92")
        ax.set_axisbelow(True)
    figure.suptitle("means and standard deviations over pairs of networks", fontsize=10)
    _legend(figure, axes, loc="outside lower center", ncols=4, fontsize=9)
    return figure


def means(rows: Sequence[Any]) -> dict[tuple[int, bool, str, int, float], dict[float, float]]:
    """Return the mean decrease by dimension, pretraining, estimator, samples and parameter, and by rate."""
    groups: dict[tuple[int, bool, str, int, float], dict[float, list[float]]] = {}
    for row in rows:
        key = (row.dim, bool(row.pretrained), row.estimator, row.samples, row.hyper)
        groups.setdefault(key, {}).setdefault(row.rate, []).append(row.decrease)
    return {key: {rate: float(np.mean(some)) for rate, some in sorted(by.items())} for key, by in groups.items()}


_KINDS = ("straight-through, and CDG", "NES: antithetic pairs", "NES: single evaluations", "best points")


def _kind_of(estimator: str) -> str:
    """Return in which row of panels an estimator is drawn."""
    if estimator == "nes":
        return _KINDS[1]
    if estimator == "nes_single":
        return _KINDS[2]
    return _KINDS[3] if estimator in ("nes_max_point", "ste_around") else _KINDS[0]


def _label_of(estimator: str, samples: int, hyper: float | None) -> str:
    """Return what a curve is called; without its parameter, if that is None."""
    names = {"cdg": "CDG", "nes": "NES", "nes_single": "NES single", "nes_max_point": "best point", "ste_around": "around STE"}
    letters = {"cdg": r"$\epsilon$", "nes": r"$\sigma$", "nes_single": r"$\sigma$", "ste_around": "spread"}
    parts = [names.get(estimator, estimator.replace("ste_", "STE ").replace("_", " "))]
    if samples and estimator in names:
        parts.append(f"n = {samples:,}")
    if hyper is not None and estimator in letters:
        parts.append(f"{letters[estimator]} = {hyper:g}")
    return ", ".join(parts)


def plot_decrease(rows: Sequence[Any], *, pretrained: bool) -> Figure:
    """Draw the mean decrease of the loss against the rate, a column a dimension, a row a kind of estimators.

    Parameters
    ----------
    rows : sequence of intnet.studies.toy_gradients.DecreaseRow
    pretrained : bool
    """
    found = {key: curve for key, curve in means(rows).items() if key[1] == pretrained}
    dims, kinds = sorted({key[0] for key in found}), [kind for kind in _KINDS if any(_kind_of(key[2]) == kind for key in found)]
    shape = (max(1, len(kinds)), max(1, len(dims)))
    figure, axes = _figure(list(found), shape, (2.9 + 3.0 * shape[1], 0.7 + 2.7 * shape[0]))
    limits = {dim: max(0.01, *(max(curve.values()) for key, curve in found.items() if key[0] == dim)) for dim in dims}
    for of_kind, kind in zip(axes, kinds, strict=True):
        names = sorted({key[2:] for key in found if _kind_of(key[2]) == kind}, key=lambda one: (one[0] == "cdg", one))
        handles = {}
        for ax, dim in zip(of_kind, dims, strict=True):
            for number, name in enumerate(names):
                if curve := found.get((dim, pretrained, *name)):
                    mark = "o" if len(curve) == 1 else ""
                    (line,) = ax.plot(list(curve), list(curve.values()), marker=mark, color=f"C{number}", linewidth=1.3)
                    handles[_label_of(*name)] = line
            ax.axhline(0, color="0.4", linewidth=0.8)
            ax.set_ylim(-limits[dim], 1.15 * limits[dim])
            _dress(ax)
        of_kind[0].set_ylabel("decrease of the loss (MSE)")
        where = {"loc": "upper left", "bbox_to_anchor": (1.02, 1.0), "borderaxespad": 0.0}
        of_kind[-1].legend(
            list(handles.values()), list(handles), title=kind, frameon=False, fontsize=8, title_fontsize=9, **where
        )
    for ax, dim in zip(axes[0], dims, strict=True):
        ax.set_title(f"dimension {dim}")
    for ax in axes[-1]:
        ax.set_xlabel("rate (length of the step, each layer)")
    figure.suptitle("after training with the vanilla STE" if pretrained else "fresh networks")
    return figure


def plot_best(rows: Sequence[Any]) -> Figure:
    """Draw the best mean decrease over rates and the estimator's parameter against the dimension.

    Parameters
    ----------
    rows : sequence of intnet.studies.toy_gradients.DecreaseRow
    """
    found = means(rows)
    kinds = sorted({key[1] for key in found})
    figure, axes = _figure(list(found), (1, max(1, len(kinds))), (3.4 + 4.0 * max(1, len(kinds)), 5.2))
    names = sorted({key[2:4] for key in found}, key=lambda one: (_KINDS.index(_kind_of(one[0])), one))
    dims = sorted({key[0] for key in found})
    for ax, trained in zip(axes[0], kinds, strict=True):
        for number, name in enumerate(names):
            best: dict[int, float] = {}
            for key, curve in found.items():
                if key[1:4] == (trained, *name):
                    best[key[0]] = max(best.get(key[0], -np.inf), max(curve.values()))
            if best:
                at = sorted(best)
                style = {
                    "marker": "os^vDP*X"[number % 8],
                    "color": f"C{number % 10}",
                    "linestyle": "--" if number >= 10 else "-",
                }
                ax.plot(at, [best[dim] for dim in at], label=_label_of(*name, None), **style)
        ax.set_xscale("log", base=2)
        ax.set_xticks(dims, [str(dim) for dim in dims])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.axhline(0, color="0.4", linewidth=0.8)
        ax.set(title="after training" if trained else "fresh networks", xlabel="dimension")
        _dress(ax)
    axes[0][0].set_ylabel("best decrease over rates and parameters (mean squared error)")
    _legend(figure, axes, loc="outside right upper", fontsize=8)
    return figure


def plot_signs(rows: Sequence[Any]) -> Figure:
    """Draw the best loss over rates as boxes over batches, against how many draws are averaged.

    Parameters
    ----------
    rows : sequence of intnet.studies.toy_gradients.SignsRow
    """
    kinds = sorted({bool(row.pretrained) for row in rows})
    figure, axes = _figure(rows, (1, max(1, len(kinds))), (1.4 + 4.6 * max(1, len(kinds)), 4.4))
    for ax, trained in zip(axes[0], kinds, strict=True):
        groups: Mapping[int, list[float]] = {
            count: [row.best_loss for row in rows if (row.pretrained, row.averaged) == (trained, count)]
            for count in sorted({row.averaged for row in rows if row.pretrained == trained})
        }
        ax.boxplot(list(groups.values()), positions=range(len(groups)), widths=0.6)
        ax.set_xticks(range(len(groups)), ["STE" if count == 0 else str(count) for count in groups])
        ax.set(title="after training" if trained else "fresh networks", xlabel="stochastic activations averaged")
        _dress(ax)
    axes[0][0].set_ylabel("best loss over rates (mean squared error)")
    return figure


def plot_thin_resnet(rows: Sequence[Any]) -> Figure:
    """Draw the mean decrease of the loss against the rate, a panel a convolution, a row of panels for each kind of weights.

    Parameters
    ----------
    rows : sequence of intnet.studies.thin_resnet.ThinResNetRow
    """
    kinds, layers = sorted({row.weights for row in rows}, reverse=True), sorted({row.layer for row in rows})
    shape = (max(1, len(kinds)), max(1, len(layers)))
    figure, axes = _figure(rows, shape, (2.6 + 3.4 * shape[1], 0.8 + 3.2 * shape[0]))
    names = sorted({(row.estimator, row.epsilon, row.weights == "binary") for row in rows}, reverse=True)
    labels = list(dict.fromkeys(_label_of_layer(*name) for name in names))
    for of_kind, kind in zip(axes, kinds, strict=True):
        for ax, layer in zip(of_kind, layers, strict=True):
            curves: dict[str, dict[float, list[float]]] = {}
            for row in rows:
                if (row.weights, row.layer) == (kind, layer):
                    label = _label_of_layer(row.estimator, row.epsilon, kind == "binary")
                    curves.setdefault(label, {}).setdefault(row.rate, []).append(row.decrease)
            for label, by in curves.items():
                rates, low, high = sorted(by), [min(by[rate]) for rate in sorted(by)], [max(by[rate]) for rate in sorted(by)]
                color = f"C{labels.index(label)}"
                mark = "o" if len(rates) == 1 else ""
                curve = [float(np.mean(by[rate])) for rate in rates]
                ax.plot(rates, curve, marker=mark, color=color, label=label, linewidth=1.4)
                ax.fill_between(rates, low, high, color=color, alpha=0.15, linewidth=0)
            ax.axhline(0, color="0.4", linewidth=0.8)
            best = max((value for by in curves.values() for some in by.values() for value in some), default=0.1)
            ax.set_ylim(-1.5 * max(best, 0.02), 1.2 * max(best, 0.02))
            ax.set(title=f"{kind} weights, convolution {layer}", xlabel="rate (length of the step)")
            _dress(ax)
        of_kind[0].set_ylabel("decrease of the loss (nats)")
    figure.suptitle("means over batches; bands from the least to the greatest", fontsize=10)
    _legend(figure, axes, loc="outside right upper", fontsize=9)
    return figure


def _label_of_layer(estimator: str, epsilon: float, binary: bool) -> str:
    if estimator == "ste":
        return "STE"
    return "CDG, all signs" if binary and not epsilon else rf"CDG, $\epsilon$ = {epsilon:g}"
