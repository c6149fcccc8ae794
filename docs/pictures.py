"""Draw the pictures of the documentation: python docs/pictures.py."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from intnet import arithmetic
from intnet.formats import Rounding

SHIFT = 5  # the curves are drawn for values in steps of 2**-SHIFT units
FOLDER = Path(__file__).parent


def rounded(mode: Rounding, values: np.ndarray) -> np.ndarray:
    """Return the mean result of rounding raw values with SHIFT bits to drop."""
    if mode is Rounding.STOCHASTIC:
        fractions = range(2**SHIFT)
        return np.array(
            [np.mean([arithmetic.round_shift_stochastic(v, SHIFT, r, SHIFT) for r in fractions]) for v in values.tolist()]
        )
    if mode is Rounding.PSEUDO_STOCHASTIC:
        return np.array([arithmetic.round_shift_pseudo_stochastic(v, SHIFT) for v in values.tolist()])
    constants = arithmetic.rounding_constants(mode.code, SHIFT)
    return np.array([arithmetic.round_shift(v, SHIFT, *constants) for v in values.tolist()])


def draw_rounding() -> Figure:
    """Draw what every rounding mode makes of the values between -2.5 and 2.5, and its mean error."""
    values = np.arange(-5 * 2 ** (SHIFT - 1), 5 * 2 ** (SHIFT - 1) + 1)
    exact = values / 2**SHIFT
    figure = Figure(figsize=(11, 8.6), layout="constrained")
    for axes, mode in zip(figure.subplots(3, 4, sharex=True, sharey=True).flat, Rounding, strict=True):
        result = rounded(mode, values)
        period = slice(2 ** (SHIFT - 1), 2 ** (SHIFT - 1) + 4 * 2**SHIFT)  # whole units, both signs alike
        bias = np.mean((result - exact)[period])
        axes.plot([-2.5, 2.5], [-2.5, 2.5], color="0.75", linewidth=1)
        if mode is Rounding.STOCHASTIC:
            low, high = np.floor(exact), np.ceil(exact)
            axes.fill_between(exact, low, high, step="mid", color="tab:blue", alpha=0.25, linewidth=0)
            axes.plot(exact, result, color="tab:blue", linewidth=2)
        else:
            for level in np.unique(result):
                at = result == level
                axes.plot(np.where(at, exact, np.nan), np.where(at, result, np.nan), color="tab:blue", linewidth=2)
                axes.plot(exact[at], result[at], ".", color="tab:blue", markersize=3)
        axes.set_title(f"{mode.value}\nmean error {bias:+.3f} units", fontsize=10)
        axes.set(xticks=range(-2, 3), yticks=range(-2, 3), aspect="equal")
        axes.grid(color="0.92")
    figure.supxlabel("exact value, in units of the result (steps of 1/32)")
    figure.supylabel("rounded value")
    return figure


if __name__ == "__main__":
    draw_rounding().savefig(FOLDER / "rounding.png", dpi=110)
