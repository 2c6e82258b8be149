"""MelGlow and WaveGlow, the same flow with different conditioners; all models by name, sizes from a file checked."""

import inspect
import math
from collections.abc import Mapping

from melglow_plugin.checks import short
from melglow_plugin.model.lvc_net import LVCNet
from melglow_plugin.model.lvcnet_generator import LVCNetGenerator
from melglow_plugin.model.mel_model import MelModel, constructor_arguments
from melglow_plugin.model.melflow import MelFlow
from melglow_plugin.model.wavenet import WN


class MelGlow(MelFlow):
    """The flow with location-variable convolution in its couplings.

    Zeng et al., "MelGlow: Efficient Waveform Generative Network Based on Location-Variable Convolution", SLT 2021,
    arXiv:2012.01684. Arguments as in :class:`MelFlow` and :class:`~melglow_plugin.model.lvc_net.LVCNet`.
    """

    def __init__(
        self,
        n_mels: int = 80,
        hop_length: int = 256,
        squeeze_factor: int = 8,
        n_flows: int = 12,
        early_every: int = 4,
        early_size: int = 2,
        channels: int = 16,
        n_layers: int = 7,
        kernel_size: int = 3,
        predictor_channels: int = 32,
        predictor_layers: int = 2,
        max_log_s: float = 3.0,
        lpc_order: int = 0,
        postfilter_channels: int = 0,
    ) -> None:
        self.hyperparameters = constructor_arguments(locals())

        def conditioner(io_channels: int) -> LVCNet:
            return LVCNet(io_channels, n_mels, channels, n_layers, kernel_size, predictor_channels, predictor_layers)

        super().__init__(
            conditioner, n_mels, hop_length, squeeze_factor, n_flows, early_every, early_size, max_log_s, lpc_order,
            postfilter_channels,
        )  # fmt: skip


class WaveGlow(MelFlow):
    """The flow with WaveGlow's WN in its couplings: the paper's baseline.

    Prenger et al., "WaveGlow", ICASSP 2019, arXiv:1811.00002. Arguments as in :class:`MelFlow` and
    :class:`~melglow_plugin.model.wavenet.WN`.
    """

    def __init__(
        self,
        n_mels: int = 80,
        hop_length: int = 256,
        squeeze_factor: int = 8,
        n_flows: int = 12,
        early_every: int = 4,
        early_size: int = 2,
        channels: int = 64,
        n_layers: int = 8,
        kernel_size: int = 3,
        max_log_s: float = 3.0,
        lpc_order: int = 0,
        postfilter_channels: int = 0,
    ) -> None:
        self.hyperparameters = constructor_arguments(locals())

        def conditioner(io_channels: int) -> WN:
            return WN(io_channels, n_mels, channels, n_layers, kernel_size)

        super().__init__(
            conditioner, n_mels, hop_length, squeeze_factor, n_flows, early_every, early_size, max_log_s, lpc_order,
            postfilter_channels,
        )  # fmt: skip


MODELS: dict[str, type[MelModel]] = {"melglow": MelGlow, "waveglow": WaveGlow, "lvcnet": LVCNetGenerator}
MAX_PARAMETERS = 300_000_000  # 1.2 GB; WaveGlow with its 256 channels has 88 million
# Of the sizes not named here: 65,536.
MAX_SIZES = {
    "n_flows": 256, "n_blocks": 256, "n_layers": 20, "predictor_layers": 64, "lpc_order": 64, "postfilter_channels": 64,
}  # fmt: skip
CAN_BE_0 = ("predictor_layers", "lpc_order", "postfilter_channels")


def build(architecture: str, sizes: Mapping) -> MelModel:
    """A fresh model of values from a file.

    Raises:
        ValueError: an unknown architecture or name, a value of another type than its default, or a size that would
            fill the memory.
    """
    if not isinstance(architecture, str) or architecture not in MODELS:
        raise ValueError(f"architecture {short(architecture)} is none of {', '.join(MODELS)}")
    if sizes.get("mel_gain") is False:  # written by version 0.1, where it could be true
        sizes = {name: value for name, value in sizes.items() if name != "mel_gain"}
    check_sizes(architecture, sizes)
    return MODELS[architecture](**sizes)


def check_sizes(architecture: str, sizes: Mapping) -> None:
    """ValueError naming the field unless :func:`build` can make such a model; costs no memory."""
    known = {name: p.default for name, p in inspect.signature(MODELS[architecture]).parameters.items()}
    if unknown := sorted(map(short, set(sizes) - set(known))):
        raise ValueError(f"unknown {', '.join(unknown[:5])}; {architecture} has {', '.join(known)}")
    for name, value in sizes.items():
        default = known[name]
        if type(value) is not type(default) and not (type(default) is float and type(value) is int):
            raise ValueError(f"{name} {short(value)}: wanted {type(default).__name__} as in {default!r}")
        if type(default) is float and not 0 < value < math.inf:
            raise ValueError(f"{name} {value!r} is no finite number above 0")
        lowest, highest = 0 if name in CAN_BE_0 else 1, MAX_SIZES.get(name, 65_536)
        if type(default) is int and not lowest <= value <= highest:
            raise ValueError(f"{name} {value} does not lie between {lowest} and {highest}")
    if (most := most_parameters(**{**known, **sizes})) > MAX_PARAMETERS:
        raise ValueError(f"{architecture} of these sizes has about {most:,} parameters, more than {MAX_PARAMETERS:,}")


def most_parameters(
    n_mels: int, squeeze_factor: int, channels: int, n_layers: int, kernel_size: int, n_flows: int = 0,
    n_blocks: int = 0, predictor_channels: int = 0, predictor_layers: int = 0, **_,
) -> int:  # fmt: skip
    """An upper bound of a model's parameters, without making one; a predictor of width 0 is WaveGlow's."""
    layer = (predictor_channels + 1) * (kernel_size * channels + 1) * 2 * channels
    layer += 2 * channels * (channels + 3 * n_mels + squeeze_factor + 2)
    reading = predictor_channels * (5 * n_mels + predictor_layers * (3 * predictor_channels + 1) + 1)
    net = n_layers * layer + reading + squeeze_factor * (squeeze_factor + channels + 2)
    return (n_flows + n_blocks) * net + n_mels + 1


def architecture(flow: MelModel) -> str:
    """The name under which the model's class is registered."""
    return next(name for name, cls in MODELS.items() if type(flow) is cls)
