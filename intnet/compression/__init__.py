"""Sparse and few-bit networks: pruning, sparse optimization, and weights and activations as codes of few bits.

1. Pruning       `prune_layers` by a percentile of each layer, `prune_globally` by one threshold, `enforce` and `release` masks,
                 `sparsity`
2. Quantization  `WeightCoding` and `quantize_weights`, `quantize_inputs`, `take_away`; fine-tuning is training,
                 straight through
3. Optimization  `SparseSGD` on networks, `SparseDescent` on least squares, and what they are made of: `project`,
                 `soft_threshold`, `trimmed_threshold`

See docs/compression.md.
"""

from intnet.compression.optimizer import SparseSGD
from intnet.compression.pruning import (
    Sparsity,
    enforce,
    prunable,
    prune_globally,
    prune_layers,
    release,
    set_mask,
    sparsity,
)
from intnet.compression.quantization import (
    WeightCoding,
    dequantized,
    quantizable,
    quantize_inputs,
    quantize_weights,
    take_away,
)
from intnet.compression.sparse import SparseDescent, project, smallest, soft_threshold, trimmed_threshold

__all__ = [
    "SparseDescent",
    "SparseSGD",
    "Sparsity",
    "WeightCoding",
    "dequantized",
    "enforce",
    "project",
    "prunable",
    "prune_globally",
    "prune_layers",
    "quantizable",
    "quantize_inputs",
    "quantize_weights",
    "release",
    "set_mask",
    "smallest",
    "soft_threshold",
    "sparsity",
    "take_away",
    "trimmed_threshold",
]
