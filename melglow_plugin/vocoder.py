"""Vocoder: mel in, wav out. All that hosts, the command line and users call."""

import itertools
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from melglow_plugin.checkpoint import adapt, any_file, folder, hub
from melglow_plugin.checkpoint.checkpoint import Checkpoint
from melglow_plugin.inference import refine as refinement
from melglow_plugin.inference.chunks import (
    forward_in_chunks,
    inverse_in_chunks,
    refine_in_chunks,
    stream_frames,
    stream_refined,
)
from melglow_plugin.inference.cuda_graphs import GraphedInverse
from melglow_plugin.inference.noise import gaussian_noise
from melglow_plugin.inference.refine import check_rounds
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.model.loss import nats_per_sample
from melglow_plugin.model.melflow import MelFlow
from melglow_plugin.processor import warn_if_emulated

# ``strangeness`` from which a call warns. Measured (docs/mel.md): right mels of five voices stay below 1.
STRANGE = 1.2
JUDGED_FRAMES, JUDGED_AT_MOST = 150, 2000  # fewer say too little, more cost time
JUDGED_CALLS = 8  # of each vocoder: a process rarely changes its source of mels, and judging waits for the device
_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_warned = False  # once in a process
# Files that a warning passes over; before Python 3.12 it names the caller of this one.
_OURS = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
_NOT_THE_CALLER = {"skip_file_prefixes": _OURS} if sys.version_info >= (3, 12) else {"stacklevel": 4}


class Vocoder(nn.Module):
    """A trained flow with the mel that it understands.

    Args:
        flow: MelGlow or WaveGlow; its weights become float32.
        convention: what its mel means.
        training: facts about the training, kept with the model.
        dtype: bfloat16 or float16 run the conditioners in that precision; the flow's own arithmetic stays float32.
            ``half()``, ``bfloat16()`` and ``float()`` choose the same; ``double()`` changes nothing.
        refine: rounds of refinement after the flow (:func:`melglow_plugin.inference.refine.refine`) where a call names
            none; kept with the model.
    """

    def __init__(
        self,
        flow: MelFlow,
        convention: MelConvention,
        training: dict | None = None,
        dtype: torch.dtype | None = None,
        refine: int = 0,
    ) -> None:
        super().__init__()
        Checkpoint(flow, convention, refine=refine)  # refuses what does not fit together
        if dtype not in (None, torch.float32, torch.bfloat16, torch.float16):
            raise ValueError(f"dtype {dtype} is none of float32, bfloat16, float16")
        self.flow = flow.float()
        self.convention = convention
        self.training_facts = training or {}
        self.dtype = dtype
        self.refine = refine
        self._judged = 0  # calls
        self._graphed: GraphedInverse | None = None
        self.eval()

    @classmethod
    def from_pretrained(
        cls, path_or_hub_id: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
    ) -> "Vocoder":
        """Load a folder written by :meth:`save_pretrained`, any other file of a model that is known
        (:func:`melglow_plugin.checkpoint.load`), or ``user/name`` from the Hugging Face Hub."""
        path = Path(path_or_hub_id)
        checkpoint = any_file.load(path if path.exists() else hub.download(str(path_or_hub_id)))
        return cls.from_checkpoint(checkpoint, dtype).to(device)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, dtype: torch.dtype | None = None) -> "Vocoder":
        """The vocoder of a checkpoint; ``dtype`` as of the class."""
        return cls(checkpoint.flow, checkpoint.convention, checkpoint.training, dtype, checkpoint.refine)

    @property
    def checkpoint(self) -> Checkpoint:
        """What the formats write: flow, mel, facts about the training, rounds of refinement."""
        return Checkpoint(self.flow, self.convention, self.training_facts, self.refine)

    def save_pretrained(self, path: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write ``config.json``, ``model.safetensors`` and, where there is none yet, a model card.

        ``dtype`` is that of the weights in the file, which is half as large with ``torch.float16``.
        """
        folder.save(path, self.checkpoint, dtype)

    def adapted(self, convention: MelConvention, other_rate: bool = False) -> "Vocoder":
        """This vocoder for another mel, without training (:func:`melglow_plugin.checkpoint.adapt.adapted`).

        With ``other_rate`` the mel may be of another sample rate: a start for training, as pitch and time shift.

        Raises:
            ValueError: the mels differ in more than logarithm, range, filterbank and where frames lie.
        """
        flow = adapt.adapted(self.flow, self.convention, convention, other_rate=other_rate)
        facts = {k: v for k, v in self.training_facts.items() if k != "metrics"}  # they were of the other mel
        facts["adapted"] = "; ".join(self.convention.differences(convention)) or "other units"
        return Vocoder(flow, convention, facts, self.dtype, self.refine)

    def push_to_hub(self, name: str, **options):
        """Upload to ``user/name`` of the Hugging Face Hub, with a model card; options as in :func:`hub.push`."""
        return hub.push(self.checkpoint, name, **options)

    def use_graphs(self, on: bool = True) -> "Vocoder":
        """Speak by CUDA graphs over buckets of lengths: a call is one launch, after the first of its bucket.

        The weights are those of this moment; moving the vocoder ends it. Not run on a GPU yet (docs/speed.md).

        Raises:
            ValueError: the vocoder is not on a CUDA device.
        """
        if on and self.device.type != "cuda":
            raise ValueError(f"graphs need a CUDA device, the vocoder is on {self.device}")
        flow = self.flow.with_constant_inverses() if on else None

        def inverse(z: Tensor, mel: Tensor, lengths: Tensor) -> Tensor:
            with self._precision():
                return flow.inverse(z, mel, lengths)

        self._graphed = GraphedInverse(inverse, self.hop_length) if on else None
        return self

    def _apply(self, change, recurse=True):
        self._graphed = None  # it holds the weights where they were
        return super()._apply(self._keeping_precision(change), recurse)

    def _keeping_precision(self, change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """What torch would do to every weight, but the type: that of the conditioners is chosen instead."""
        changed = change(torch.empty(0, dtype=torch.float32, device=self.device))
        if changed.device.type == "mps":
            raise ValueError("device mps: linear prediction needs float64, which Apple's GPU has not: use cpu")
        if changed.dtype == torch.float32:
            return change
        if changed.dtype in (torch.float16, torch.bfloat16):
            self.dtype = changed.dtype
        return lambda weight: weight.to(changed.device)

    @property
    def sample_rate(self) -> int:
        return self.convention.sample_rate

    @property
    def hop_length(self) -> int:
        return self.convention.hop_length

    @property
    def device(self) -> torch.device:
        return self.flow.mel_mean.device

    @torch.no_grad()
    def forward(
        self,
        mel: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        sigma: float = 0.6,
        seed: int | Sequence[int] | None = None,
        z: Tensor | None = None,
        refine: int | None = None,
    ) -> Tensor:
        """Speak a mel.

        Args:
            mel: (M, F) or (B, M, F) in this vocoder's convention.
            lengths: frames of each example of a padded batch, (B,).
            sigma: standard deviation of the noise.
            seed: same seed, same samples, whatever the neighbours, the padding or the chunks; one for all examples or
                one for each; None: a new one every call.
            z: the latent itself, (T,) or (B, T), instead of noise.
            refine: rounds of refinement: what the flow drew is brought nearer to the mel. None: the model's own
                :attr:`refine`, or none where ``z`` is given, so that the flow's exact inverse comes out.

        Returns:
            (T,) or (B, T) float32 in [-1, 1], T = F * hop_length; zeros behind each length.

        Raises:
            ValueError: an argument has another shape or holds values that are not finite; the message names it.
        """
        rounds = self._rounds(0 if refine is None and z is not None else refine)
        batch = self._checked_mel(mel)
        lengths = self._checked_lengths(lengths, batch)
        self._warn_of_strange(batch, lengths)
        if z is None:
            z = self._noise(seed, sigma, len(batch), batch.shape[-1])
        else:
            z = self._checked_signal(z, batch, "z")
        wav = inverse_in_chunks(self._inverse, self.flow, z, batch, lengths).clamp(-1, 1)
        wav = refine_in_chunks(wav, batch, lengths, self.convention, rounds).clamp(-1, 1)
        if lengths is not None:
            samples = torch.arange(wav.shape[1], device=wav.device)
            wav = wav.masked_fill(samples >= lengths[:, None] * self.hop_length, 0.0)
        return wav[0] if mel.dim() == 2 else wav

    @torch.no_grad()
    def strangeness(self, mel: Tensor) -> float:
        """How far a mel (M, F) lies from those of the training; up to 1 in the right convention, more in others.

        With z in standard deviations of the training, the larger of the root mean square over bins of mean(z) and
        2 ln(std(z)), and of how far the loudest hundredth lies above 2. NaN where the mel is too short or constant, or
        the model keeps no statistics.
        """
        mel = self._checked_mel(mel)[0, :, :JUDGED_AT_MOST]
        # Digital silence, most of whose bins lie at their floor, says nothing about the rest.
        mel = mel[:, ((mel - mel.amin(1, keepdim=True)) < 0.01 * self.flow.mel_std[:, None]).float().mean(0) < 0.5]
        z = (mel - self.flow.mel_mean[:, None]) / self.flow.mel_std[:, None]
        unset = not self.flow.mel_mean.any() and bool((self.flow.mel_std == 1).all())
        if unset or z.shape[1] < JUDGED_FRAMES or z.std(1).mean() < 0.05:
            return float("nan")
        spread = z.std(1).clamp(min=1e-3).log()
        shape = (z.mean(1).square() + 4 * spread.square()).mean().sqrt()
        return float(torch.maximum(shape, z.flatten().quantile(0.99) - 2))

    def _warn_of_strange(self, mel: Tensor, lengths: Tensor | None) -> None:
        global _warned
        if _warned or self._judged >= JUDGED_CALLS:
            return
        self._judged += 1
        first = mel[0] if lengths is None else mel[0, :, : int(lengths[0])]
        if (found := self.strangeness(first)) > STRANGE:
            _warned = True
            warnings.warn(
                f"this mel (values {first.min():.2f} to {first.max():.2f}, mean {first.mean():.2f}) lies far from "
                f"those of the training (mean {self.flow.mel_mean.mean():.2f}, standard deviation "
                f"{self.flow.mel_std.mean():.2f}): strangeness {found:.1f}, at most 1 where the convention is right. "
                "`melglow doctor MEL.npy` tells which convention it follows.",
                **_NOT_THE_CALLER,
            )

    @torch.no_grad()
    def stream(
        self,
        mel_chunks: Iterable[Tensor],
        *,
        sigma: float = 0.6,
        seed: int | None = None,
        context_frames: int | None = None,
        refine: int | None = None,
    ) -> Iterator[Tensor]:
        """Speak a mel as it arrives; the pieces joined equal the offline result.

        Args:
            mel_chunks: pieces (M, F_i) of any sizes, at least one frame in all.
            sigma, seed, refine: as in a call.
            context_frames: frames that are awaited before one is spoken. None: the receptive field,
                ``flow.context_frames``, for the exact result. Fewer speak sooner and differ a little: a trained model
                makes use of few of the frames that it could (docs/speed.md has the errors).

        Yields:
            Pieces of wav (T_i,). A frame is spoken once ``context_frames`` more have arrived, or at the end; each round
            of refinement awaits ``n_fft`` samples more.

        Raises:
            ValueError: a piece has another shape or holds values that are not finite, there is no frame in all, or
                ``context_frames`` is negative.
        """
        context = self.flow.context_frames if context_frames is None else context_frames
        if context < 0:
            raise ValueError(f"context_frames {context_frames} is below 0")
        _check_sigma(sigma)
        seed, rounds = _new_seed() if seed is None else _checked_seed(seed), self._rounds(refine)

        def speak(mel: Tensor, first_frame: int) -> Tensor:
            start, length = first_frame * self.hop_length, mel.shape[-1] * self.hop_length
            z = sigma * gaussian_noise(seed, start, length, self.device)
            return self._inverse(z[None], mel)[0].clamp(-1, 1)

        def checked(piece: Tensor) -> Tensor:
            if getattr(piece, "ndim", 0) != 2:
                raise ValueError(f"mel_chunks: a piece of shape {tuple(getattr(piece, 'shape', ()))}, wanted (M, F)")
            return self._checked_mel(piece, allow_empty=True)[0]

        chunks = map(checked, mel_chunks)
        memory, hop = self.flow.memory_frames, self.hop_length
        if rounds == 0:
            yield from stream_frames(speak, chunks, context, memory, hop)
            return

        def polish(wav: Tensor, mel: Tensor) -> Tensor:
            return refinement.refine(wav[None], mel[None], self.convention, rounds)[0].clamp(-1, 1)

        kept, ours = itertools.tee(chunks)
        pieces = stream_frames(speak, kept, context, memory, hop)
        yield from stream_refined(polish, pieces, ours, refinement.reach_frames(self.convention, rounds), hop)

    @torch.no_grad()
    def encode(self, wav: Tensor, mel: Tensor | None = None) -> Tensor:
        """The latent of a recording, (T,) -> (F * hop_length,) or (B, T) -> (B, F * hop_length).

        ``mel`` is that of the recording where none is given. Behind the recording's end the last hop is filled by
        reflection, as its mel sees it.
        """
        wavs, mels = self._pair(wav, mel)
        missing = mels.shape[-1] * self.hop_length - wavs.shape[-1]
        if not 0 <= missing <= self.hop_length:
            raise ValueError(
                f"wav has {wavs.shape[-1]} samples, mel has {mels.shape[-1]} frames of {self.hop_length}: "
                f"{mels.shape[-1] * self.hop_length}"
            )
        z, _ = self._forward(nn.functional.pad(wavs, (0, missing), mode="reflect" if missing else "constant"), mels)
        return z[0] if wav.dim() == 1 else z

    @torch.no_grad()
    def decode(self, z: Tensor, mel: Tensor) -> Tensor:
        """The inverse of :meth:`encode`: ``z`` (T,) or (B, T) and its mel -> wav, not clamped."""
        batch = self._checked_mel(mel)
        wav = inverse_in_chunks(self._inverse, self.flow, self._checked_signal(z, batch, "z"), batch, None)
        return wav[0] if mel.dim() == 2 else wav

    @torch.no_grad()
    def score(self, wav: Tensor, mel: Tensor | None = None, sigma: float = 1.0) -> Tensor:
        """Negative log-likelihood of recordings, (T,) or (B, T) -> nats per sample (B,); lower is more likely.

        Whole hops count; ``mel`` is that of the recording where none is given; ``sigma`` that of the prior in training.
        """
        wavs, mels = self._pair(wav, mel)
        frames = min(wavs.shape[-1] // self.hop_length, mels.shape[-1])
        if abs(frames - mels.shape[-1]) > 1 or frames == 0:
            raise ValueError(
                f"wav has {wavs.shape[-1]} samples, {frames} hops of {self.hop_length}; mel has {mels.shape[-1]} frames"
            )
        return nats_per_sample(*self._forward(wavs[:, : frames * self.hop_length], mels[..., :frames]), sigma)

    # What every call goes through

    def _rounds(self, refine: int | None) -> int:
        return self.refine if refine is None else check_rounds(refine)

    def _forward(self, wav: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
        with self._precision():
            return forward_in_chunks(self.flow, wav, mel)

    def _inverse(self, z: Tensor, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        if self._graphed is not None:
            return self._graphed(z, mel, lengths)
        with self._precision():
            return self.flow.inverse(z, mel, lengths)

    def _precision(self):
        if self.device.type == "cpu":
            warn_if_emulated(self.dtype)
        reduced = self.dtype not in (None, torch.float32)
        return torch.autocast(self.device.type, self.dtype if reduced else torch.bfloat16, enabled=reduced)

    def _noise(self, seed, sigma: float, batch: int, frames: int) -> Tensor:
        _check_sigma(sigma)
        seeds = list(seed) if isinstance(seed, Sequence) else [seed] * batch
        seeds = [None if s is None else _checked_seed(s) for s in seeds]
        if len(seeds) != batch:
            raise ValueError(f"{len(seeds)} seeds for a batch of {batch}")
        length = frames * self.hop_length
        rows = {s: gaussian_noise(_new_seed() if s is None else s, 0, length, self.device) for s in set(seeds) - {None}}
        return sigma * torch.stack(
            [gaussian_noise(_new_seed(), 0, length, self.device) if s is None else rows[s] for s in seeds]
        )

    def _checked_mel(self, mel: Tensor, allow_empty: bool = False) -> Tensor:
        n_mels = self.convention.n_mels
        if not isinstance(mel, Tensor) or mel.is_complex() or mel.dim() not in (2, 3) or mel.shape[-2] != n_mels:
            shape = tuple(getattr(mel, "shape", ()))
            hint = " (frames and bins exchanged?)" if shape and shape[-1] == n_mels else ""
            raise ValueError(
                f"mel: {type(mel).__name__} of shape {shape}, wanted a tensor ({n_mels}, F) or (B, {n_mels}, F){hint}"
            )
        if mel.numel() == 0 and not allow_empty:
            raise ValueError(f"mel is empty, of shape {tuple(mel.shape)}")
        mel = mel.to(self.device, torch.float32)
        if not torch.isfinite(mel).all():
            raise ValueError(f"mel holds {int((~torch.isfinite(mel)).sum())} values that are not finite")
        return mel[None] if mel.dim() == 2 else mel

    def _checked_lengths(self, lengths, mel: Tensor) -> Tensor | None:
        if lengths is None:
            return None
        try:
            lengths = torch.as_tensor(lengths, device=mel.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"lengths {lengths!r}: wanted {len(mel)} whole numbers") from error
        if lengths.shape != (len(mel),) or lengths.dtype not in _WHOLE:
            raise ValueError(
                f"lengths: {lengths.dtype} of shape {tuple(lengths.shape)}, wanted {len(mel)} whole numbers"
            )
        if not ((lengths >= 1) & (lengths <= mel.shape[-1])).all():
            raise ValueError(f"lengths {lengths.tolist()} do not lie between 1 and the mel's {mel.shape[-1]} frames")
        # Equal lengths are no padding, and cheaper without masks.
        return None if (lengths == mel.shape[-1]).all() else lengths

    def _checked_signal(self, signal: Tensor, mel: Tensor, name: str) -> Tensor:
        expected = (len(mel), mel.shape[-1] * self.hop_length)
        batch = signal[None] if isinstance(signal, Tensor) and signal.dim() == 1 else signal
        if not isinstance(batch, Tensor) or batch.is_complex() or tuple(batch.shape) != expected:
            shape = tuple(getattr(signal, "shape", ()))
            raise ValueError(f"{name} has shape {shape} ({type(signal).__name__}), this mel asks for {expected}")
        batch = batch.to(self.device, torch.float32)
        if not torch.isfinite(batch).all():
            raise ValueError(f"{name} holds values that are not finite")
        return batch

    def _pair(self, wav: Tensor, mel: Tensor | None) -> tuple[Tensor, Tensor]:
        if not isinstance(wav, Tensor) or wav.dim() not in (1, 2) or not wav.is_floating_point():
            found = f"{getattr(wav, 'dtype', type(wav).__name__)} of shape {tuple(getattr(wav, 'shape', ()))}"
            raise ValueError(f"wav: {found}, wanted a float tensor (T,) or (B, T)")
        if wav.numel() == 0 or not torch.isfinite(wav).all():
            raise ValueError(f"wav of shape {tuple(wav.shape)} is empty or holds values that are not finite")
        wavs = (wav[None] if wav.dim() == 1 else wav).to(self.device, torch.float32)
        mels = self.convention.extract(wavs) if mel is None else self._checked_mel(mel)
        if len(mels) != len(wavs):
            raise ValueError(f"wav holds {len(wavs)} recordings, mel {len(mels)}")
        return wavs, mels


def _check_sigma(sigma: float) -> None:
    if not isinstance(sigma, int | float) or not 0 <= sigma < float("inf"):
        raise ValueError(f"sigma {sigma!r} is no finite number from 0 on")


def _checked_seed(seed: int) -> int:
    if not isinstance(seed, int) or not -(2**63) <= seed < 2**63:
        raise ValueError(f"seed {seed!r} is no whole number of 64 bits")
    return seed


def _new_seed() -> int:
    return int(torch.randint(2**62, ()))
