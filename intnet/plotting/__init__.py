"""Pictures of results, one module a study.

Every function returns a `matplotlib.figure.Figure` that belongs to no window and no pyplot state: save it with
``figure.savefig("cliffs.pdf")``, or, in a notebook that ran ``%matplotlib inline``, make it the last line of a cell.
"""

from intnet.plotting.advice import plot_advice
from intnet.plotting.averages import plot_averages
from intnet.plotting.cliffs import plot_cliffs, plot_surface
from intnet.plotting.compression import (
    plot_pruning,
    plot_quantization,
    plot_sparse_bits,
    plot_sparse_descent,
    plot_sparsity,
)
from intnet.plotting.gradients import (
    plot_best,
    plot_cosines,
    plot_decrease,
    plot_rosenbrock,
    plot_signs,
    plot_thin_resnet,
)
from intnet.plotting.halp import plot_centred, plot_test_accuracy, plot_training_loss
from intnet.plotting.swalp import plot_linear, plot_logistic
from intnet.plotting.sweeps import plot_sweep, plot_sweep_telemetry
from intnet.plotting.training import plot_telemetry, plot_training

__all__ = [
    "plot_advice",
    "plot_averages",
    "plot_best",
    "plot_centred",
    "plot_cliffs",
    "plot_cosines",
    "plot_decrease",
    "plot_linear",
    "plot_logistic",
    "plot_pruning",
    "plot_quantization",
    "plot_rosenbrock",
    "plot_signs",
    "plot_sparse_bits",
    "plot_sparse_descent",
    "plot_sparsity",
    "plot_surface",
    "plot_sweep",
    "plot_sweep_telemetry",
    "plot_telemetry",
    "plot_test_accuracy",
    "plot_thin_resnet",
    "plot_training",
    "plot_training_loss",
]
