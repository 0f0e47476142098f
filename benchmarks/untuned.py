"""A model through TVM's own import of ONNX files, compiled as it comes: what the tvm back end is held against.

Run `python benchmarks/untuned.py MODEL.onnx LIBRARY.so` with the extra `tvm` installed. The library is for the
processor of the target `tvm-cpu` and opens like one of ours, so that `edgesmith bench` lets the two take turns.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesmith import targets
from edgesmith.lowering import zig
from edgesmith.lowering.tvm import build as ours
from edgesmith.lowering.tvm import child
from edgesmith.lowering.tvm.machine import Machine

__all__ = ["Import", "build"]

LIMIT_SECONDS = 900.0


@dataclass(frozen=True)
class Import:
    """The job of a child: import a file, and let TVM compile it by its default pipeline."""

    model: Path
    machine: Machine
    link: tuple[str, ...]

    def do(self, folder: Path) -> None:
        """Leaves the shared object, with a function of ours that tells its inputs and outputs."""
        import onnx
        import tvm
        from tvm import ir, relax
        from tvm.relax.frontend.onnx import from_onnx

        model = onnx.load(self.model)
        function = from_onnx(model, keep_params_in_input=False)["main"]
        block = relax.BlockBuilder()
        imported = block.add_func(function.without_attr("global_symbol"), "imported")
        inputs = [relax.Var(given.name, given.ty) for given in function.params]
        with block.function(ours.MAIN, inputs):
            result = block.emit(relax.Call(imported, inputs))
            block.emit_func_output(result if len(model.graph.output) > 1 else relax.Tuple([result]))
        with block.function(ours.ABOUT, []):
            block.emit_func_output(ir.StringImm(json.dumps(about(model, self.machine))))
        compiled = tvm.compile(block.get(), target=tvm.target.Target(self.machine.tvm()))
        ours.export(compiled, folder / ours.RESULT, self.link)


def about(model: Any, machine: Machine) -> dict[str, Any]:
    """Ports of an ONNX model in the words of our libraries; its kernels have no names of layers."""
    import onnx

    def port(value: Any) -> dict[str, Any]:
        kind = value.type.tensor_type
        shape = [axis.dim_value for axis in kind.shape.dim]
        return {"name": value.name, "shape": shape, "dtype": onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name}

    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [port(value) for value in graph.input if value.name not in weights]
    outputs = [port(value) for value in graph.output]
    return {"name": graph.name, "vectors": machine.best, "inputs": inputs, "outputs": outputs, "layers": []}


def build(model: Path, library: Path) -> None:
    """Compile a file of static shapes to a library."""
    machine = Machine.of(targets.get("tvm-cpu").format)
    job = Import(model.resolve(), machine, (*zig.command(), *machine.link))
    with tempfile.TemporaryDirectory() as folder:
        child.run(job, Path(folder), LIMIT_SECONDS)
        shutil.move(Path(folder) / ours.RESULT, library)


if __name__ == "__main__":
    import untuned  # by its name, under which the child finds the job's class

    untuned.build(Path(sys.argv[1]), Path(sys.argv[2]))
