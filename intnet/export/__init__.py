"""What intnet trains, for other tools: vectors, traces, test benches, integer programs, C and ONNX; and float weights in.

What needs packages of an extra imports them when it is called.
"""

from intnet.export.c import write_c
from intnet.export.comparison import Difference, compare_traces
from intnet.export.floats import import_floats
from intnet.export.mem import read_mem, write_mem
from intnet.export.onnx import write_onnx
from intnet.export.operations import Program
from intnet.export.program import program_of
from intnet.export.qonnx import write_qonnx
from intnet.export.recording import record_trace, trace_inference
from intnet.export.traces import Trace
from intnet.export.verilog import write_dense_bench

__all__ = [
    "Difference",
    "Program",
    "Trace",
    "compare_traces",
    "import_floats",
    "program_of",
    "read_mem",
    "record_trace",
    "trace_inference",
    "write_c",
    "write_dense_bench",
    "write_mem",
    "write_onnx",
    "write_qonnx",
]
