"""Conversion of a trained model without training: for another mel, or without early outputs."""

import copy

import torch
from torch import Tensor

from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.mel.filterbank import geometry, interpolation
from melglow_plugin.model.mel_model import MelModel
from melglow_plugin.model.melflow import MelFlow


def adapted(
    flow: MelModel,
    source: MelConvention,
    target: MelConvention,
    statistics: tuple[Tensor, Tensor] | None = None,
    other_rate: bool = False,
) -> MelModel:
    """A copy of ``flow``, a model for mels of ``source``, that takes mels of ``target``.

    Between two filterbanks the log-mels are nearly linear maps of each other, m = A m' + b, by interpolation of the
    density over frequency. A layer W m + c that reads the mel becomes (W A) m' + (W b + c). Linear prediction is
    computed for the new mel directly. Frames are not moved: where ``target`` puts them elsewhere, the audio is shifted.

    Args:
        flow: with the weights of ``source``.
        source, target: may differ in logarithm and range, in the filterbank, in where frames lie.
        statistics: of target mels, mean and standard deviation per bin, (M,) each; None: mapped from the model's own.
        other_rate: the two may differ in ``sample_rate``, too. Samples and FFT bins are mapped one to one, so what
            was learned shifts in pitch and time by the ratio of the rates: a start for training, no model for use.

    Returns:
        A model whose ``n_mels`` are those of ``target``.

    Raises:
        ValueError: the two differ in more than that; these fields are named with both values.
    """
    fields = source.incompatible_fields(target)
    if beyond := [each for each in fields if not (other_rate and each.startswith("sample_rate "))]:
        raise ValueError(f"no model of one mel can be adapted to the other: {'; '.join(beyond)}")
    device, flow = flow.mel_mean.device, copy.deepcopy(flow).cpu()
    to_source, offset = linear_map(target, source)
    mean, std = flow.mel_mean.double(), flow.mel_std.double()
    if statistics is None:
        back, shift = linear_map(source, target)
        statistics = back @ mean + shift, (back @ std).abs()
    new = type(flow)(**{**flow.hyperparameters, "n_mels": target.n_mels})
    changed = ("mel_mean", "mel_std", ".input_conv.", ".mel_conv.", "lpc.")
    kept = {k: v for k, v in flow.state_dict().items() if not any(name in k for name in changed)}
    new.load_state_dict(kept, strict=False)
    new.set_mel_statistics(*(each.float() for each in statistics))
    new.set_mel_bands(*target.band_powers())
    # x = weight @ x' + bias, normalised mels both
    weight = to_source * new.mel_std.double() / std[:, None]
    bias = (to_source @ new.mel_mean.double() + offset - mean) / std
    with torch.no_grad():
        for net, new_net in zip(flow.nets, new.nets, strict=True):
            old, new_conv = net.mel_conv.weight.double(), new_net.mel_conv
            new_conv.weight.copy_(torch.einsum("omk,mn->onk", old, weight))
            new_conv.get_parameter("bias").copy_(net.mel_conv.get_parameter("bias") + old.sum(-1) @ bias)
    return new.to(device, flow.mel_mean.dtype).train(flow.training)


def without_early_outputs(flow: MelFlow) -> MelFlow:
    """A flow without early outputs that computes the same as ``flow``, as a start for more training.

    The channels that left early pass through 1x1 convolutions that do not change them, and through couplings with
    weights of zero for them, as in Chen et al., "Net2Net", ICLR 2016, arXiv:1511.05641. The channels of ``z`` are in
    another order.

    Returns:
        A flow whose ``early_every`` is its number of flows; ``flow`` itself where nothing leaves early.
    """
    size, n_flows = flow.squeeze_factor, len(flow.couplings)
    if flow.early_every >= n_flows:
        return flow
    new = type(flow)(**{**flow.hyperparameters, "early_every": n_flows}).to(flow.convs_1x1[0].weight)
    old, weights = flow.state_dict(), new.state_dict()
    place = torch.arange(size)  # of each channel: of those that the flow still has, then of those that left it
    for k, conv in enumerate(flow.convs_1x1):
        if flow.leaves_early(k):
            place = place.roll(-flow.early_size)
        n = len(conv.weight)
        # A coupling keeps half of the channels: here half of those that remain, and half of those that left.
        halves = [part.view(2, len(part) // 2) for part in torch.arange(size).split([n, size - n])]
        order = torch.cat(halves, dim=1).flatten()
        whole = torch.block_diag(conv.weight.detach(), torch.eye(size - n).to(conv.weight))
        weights[f"convs_1x1.{k}.weight"][place] = whole[:, order]
        place = order.argsort()
    for name, value in old.items():
        if weights[name].shape == value.shape:
            weights[name].copy_(value)
        elif name.endswith("start.weight"):
            weights[name].zero_()[:, : value.shape[1]] = value
        elif ".end." in name:  # log_s beside t
            weights[name].zero_().unflatten(0, (2, -1))[:, : len(value) // 2] = value.unflatten(0, (2, -1))
    return new.train(flow.training)


def linear_map(source: MelConvention, target: MelConvention) -> tuple[Tensor, Tensor]:
    """``target ~ weight @ source + bias`` for mels (M, F) of the two: weight (M', M), bias (M',), in float64.

    Exact where they differ in units alone.
    """
    unit, level, centre, area = _density(source)
    new_unit, new_level, new_centre, new_area = _density(target)
    used, new_used = area > 0, new_area > 0  # narrow low filters may hold no bin of the spectrum at all
    between = torch.zeros(target.n_mels, source.n_mels, dtype=torch.float64)  # from nats to nats
    share = interpolation(centre[used], new_centre[new_used])
    between[new_used.nonzero(), used.nonzero().mT] = share * (target.power / source.power)
    log_area, new_log_area = (torch.where(each > 0, each, 1.0).log() for each in (area, new_area))
    bias = (between @ (level - log_area) + new_log_area - new_level) / new_unit
    silence = target.from_linear(torch.zeros(target.n_mels, 1, dtype=torch.float64))[:, 0]
    return between * unit / new_unit[:, None], torch.where(new_used, bias, silence)


def _density(convention: MelConvention) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Per bin: nats of one unit, nats of the value 0, the filter's centre and its area, in bins of the spectrum."""
    zeros = torch.zeros(convention.n_mels, 1, dtype=torch.float64)
    level = convention.to_log_linear(zeros)[:, 0]
    unit = convention.to_log_linear(zeros + 1)[:, 0] - level
    bank = convention.filterbank(zeros)
    return unit, level, *geometry(bank)
