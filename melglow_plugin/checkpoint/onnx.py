"""Synthesis as a graph, for ONNX or torch.export: ``mel`` and ``z`` as inputs, any length, any batch."""

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from melglow_plugin.checkpoint.checkpoint import Checkpoint
from melglow_plugin.files import atomic_write, make_folder, write_bytes
from melglow_plugin.inference.sharpness import LEAST_BINS, bend_of_noise
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.model.mel_model import MelModel
from melglow_plugin.model.postfilter import Postfilter

EXAMPLE_FRAMES = 50  # length of the example that is traced; the result does not depend on it


def to_onnx(checkpoint: Checkpoint, folder: str | Path, opset: int = 18) -> tuple[Path]:
    """Write ``model.onnx``: inputs ``mel`` (B, M, F) and ``z`` (B, F * hop_length), output ``wav`` (B, F * hop_length).

    ``z`` is Gaussian noise times sigma, as in a call of the vocoder. The mel's convention, rate and hop are in the
    model's metadata, as JSON. The graph is the flow without sharpening and refinement. The metadata also hold their
    strength and rounds, the mel filters (first bin, values) and the postfilter; egs/ljspeech/onnx has them in numpy.
    """
    graph, example, shapes = _traceable(checkpoint)
    with warnings.catch_warnings(), _quiet("torch.onnx._internal.exporter._registration"):
        warnings.filterwarnings("ignore", "# The axis name")  # both inputs have the same batch, as they should
        program = torch.onnx.export(
            graph, example, dynamo=True, opset_version=opset, input_names=["mel", "z"], output_names=["wav"],
            verbose=False, dynamic_shapes=shapes, optimize=False,
        )  # fmt: skip
    _simplify(program.model)
    program.model.metadata_props.update({name: json.dumps(value) for name, value in _facts(checkpoint).items()})
    path = Path(folder) / "model.onnx"
    make_folder(path.parent)
    write_bytes(path, program.model_proto.SerializeToString())
    return (path,)


def to_program(checkpoint: Checkpoint, folder: str | Path) -> tuple[Path]:
    """Write ``model.pt2`` for ``torch.export.load``: ``program.module()(mel, z)`` is the wav, as in :func:`to_onnx`.

    The extra file ``facts.json`` holds what the ONNX file has as metadata.
    """
    graph, example, shapes = _traceable(checkpoint)
    program = torch.export.export(graph, example, dynamic_shapes=shapes)
    path = Path(folder) / "model.pt2"
    make_folder(path.parent)
    with atomic_write(path) as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No complete tensor found")  # torch's, of weights that share a storage
        torch.export.save(program, file, extra_files={"facts.json": json.dumps(_facts(checkpoint))})
    return (path,)


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Errors of a logger alone: this one reports that torchvision is missing, which nothing here needs."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


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


def _facts(checkpoint: Checkpoint) -> dict:
    """What a caller of the graph needs: its mel, what comes before and after it, and whose it is."""
    convention, facts = checkpoint.convention, checkpoint.facts()
    named = ("sharpen", "refine", "convention", "architecture", "training")
    return {
        "sample_rate": convention.sample_rate,
        "hop_length": convention.hop_length,
        "bend_of_noise": bend_of_noise(convention) if convention.n_mels >= LEAST_BINS else 1.0,
        "filterbank": _filters(convention),
        "postfilter": _layers(checkpoint.flow.postfilter),
    } | {name: facts[name] for name in named}


def _filters(convention: MelConvention) -> list[tuple[int, list[float]]]:
    """Of each filter over the bins of the STFT, the first bin that it weighs and its weights from there on."""
    rows = []
    for row in convention.filterbank(torch.zeros(1)):
        used = row.nonzero()[:, 0].tolist() or [0]
        rows.append((used[0], [float(f"{v:.7g}") for v in row[used[0] : used[-1] + 1]]))
    return rows


def _layers(postfilter: Postfilter | None) -> list[dict]:
    """Weights (out, in, frames, bins), bias and dilation of each convolution; nothing where there is no postfilter."""
    convs = [] if postfilter is None else [*postfilter.convs, postfilter.output]
    return [
        {"weight": conv.weight.tolist(), "bias": conv.bias.tolist(), "dilation": conv.dilation[0]} for conv in convs
    ]


def _traceable(checkpoint: Checkpoint) -> tuple["InverseFlow", tuple[Tensor, Tensor], dict]:
    """The graph, an example of its inputs, and which of their dimensions are free."""
    batch, frames = torch.export.Dim("batch"), torch.export.Dim("frames")
    example = (
        torch.zeros(2, checkpoint.convention.n_mels, EXAMPLE_FRAMES),
        torch.zeros(2, EXAMPLE_FRAMES * checkpoint.flow.hop_length),
    )
    shapes = {"mel": {0: batch, 2: frames}, "z": {0: batch, 1: checkpoint.flow.hop_length * frames}}
    return InverseFlow(checkpoint.flow).float().cpu().eval(), example, shapes


class InverseFlow(nn.Module):
    """``flow.inverse`` with the 1x1 inverses as constants: ONNX has no matrix inverse."""

    def __init__(self, flow: MelModel) -> None:
        super().__init__()
        self.flow = flow.with_constant_inverses()

    def forward(self, mel: Tensor, z: Tensor) -> Tensor:
        """``mel`` (B, M, F), ``z`` (B, T) -> wav (B, T)."""
        return self.flow.inverse(z, mel).clamp(-1, 1)
