"""The inverse flow as a graph, for ONNX or torch.export: ``mel`` and ``z`` as inputs, any length, any batch."""

import json
import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from melglow_plugin.model.melflow import MelFlow
from melglow_plugin.vocoder import Vocoder

EXAMPLE_FRAMES = 50  # length of the example that is traced; it leaves no mark on the result


def to_onnx(vocoder: Vocoder, folder: str | Path, opset: int = 18) -> tuple[Path]:
    """Write ``model.onnx``: inputs ``mel`` (B, M, F) and ``z`` (B, F * hop_length), output ``wav`` (B, F * hop_length).

    ``z`` is Gaussian noise times sigma, as in a call of the vocoder. The mel's convention, rate and hop are in the
    model's metadata, as JSON. The graph is the flow; what its refinement needs is in the metadata, too: the number of
    rounds, and of each filter the first bin and the values. egs/ljspeech/onnx/refine.py does it in numpy.
    """
    graph, example, shapes = _traceable(vocoder)
    # It would tell that torchvision is missing, which nothing here needs.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "# The axis name")  # both inputs have the same batch, as they should
        program = torch.onnx.export(
            graph, example, dynamo=True, opset_version=opset, input_names=["mel", "z"], output_names=["wav"],
            verbose=False, dynamic_shapes=shapes, optimize=False,
        )  # fmt: skip
    _simplify(program.model)
    program.model.metadata_props.update(
        sample_rate=str(vocoder.sample_rate),
        hop_length=str(vocoder.hop_length),
        convention=json.dumps(vocoder.convention.to_dict()),
        refine=str(vocoder.refine),
        filterbank=json.dumps(_filters(vocoder)),
    )
    path = Path(folder) / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    program.save(str(path))
    return (path,)


def to_program(vocoder: Vocoder, folder: str | Path) -> tuple[Path]:
    """Write ``model.pt2`` for ``torch.export.load``: ``program.module()(mel, z)`` is the wav, as in :func:`to_onnx`."""
    graph, example, shapes = _traceable(vocoder)
    program = torch.export.export(graph, example, dynamic_shapes=shapes)
    path = Path(folder) / "model.pt2"
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {"sample_rate": vocoder.sample_rate, "hop_length": vocoder.hop_length, "refine": vocoder.refine}
    facts["convention"] = vocoder.convention.to_dict()
    torch.export.save(program, path, extra_files={"facts.json": json.dumps(facts)})
    return (path,)


def _simplify(model) -> None:
    """Constants folded, what is computed twice computed once.

    The exporter's own optimiser also looks for patterns to fuse, for minutes; onnxruntime, which does that when it
    loads, is no faster after it.
    """
    from onnx_ir.passes import common
    from onnxscript import optimizer

    optimizer.fold_constants(model)
    optimizer.remove_unused_nodes(model)  # their outputs would count as used
    for tidy in (common.CommonSubexpressionEliminationPass(), common.DeduplicateInitializersPass()):
        tidy(model)
    optimizer.remove_unused_nodes(model)


def _filters(vocoder: Vocoder) -> list[tuple[int, list[float]]]:
    """Of each filter over the bins of the STFT, the first bin that it weighs and its weights from there on."""
    rows = []
    for row in vocoder.convention._filterbank(torch.zeros(1)):
        used = row.nonzero()[:, 0].tolist() or [0]
        rows.append((used[0], [float(f"{v:.7g}") for v in row[used[0] : used[-1] + 1]]))
    return rows


def _traceable(vocoder: Vocoder) -> tuple["InverseFlow", tuple[Tensor, Tensor], dict]:
    """The graph, an example of its inputs, and which of their dimensions are free."""
    batch, frames = torch.export.Dim("batch"), torch.export.Dim("frames")
    example = (
        torch.zeros(2, vocoder.convention.n_mels, EXAMPLE_FRAMES),
        torch.zeros(2, EXAMPLE_FRAMES * vocoder.hop_length),
    )
    shapes = {"mel": {0: batch, 2: frames}, "z": {0: batch, 1: vocoder.hop_length * frames}}
    return InverseFlow(vocoder.flow).float().cpu().eval(), example, shapes


class InverseFlow(nn.Module):
    """``flow.inverse`` with the 1x1 inverses as constants: ONNX has no matrix inverse."""

    def __init__(self, flow: MelFlow) -> None:
        super().__init__()
        self.flow = flow.with_fixed_mixes()

    def forward(self, mel: Tensor, z: Tensor) -> Tensor:
        """``mel`` (B, M, F), ``z`` (B, T) -> wav (B, T)."""
        return self.flow.inverse(z, mel).clamp(-1, 1)
