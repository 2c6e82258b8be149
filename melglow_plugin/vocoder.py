"""Vocoder: mel in, wav out. All that hosts, the command line and users call."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from melglow_plugin.checkpoint import adapt, any_file, folder, hub
from melglow_plugin.checkpoint.checkpoint import Checkpoint
from melglow_plugin.checks import renamed_method
from melglow_plugin.inference import arguments
from melglow_plugin.inference import refine as refinement
from melglow_plugin.inference.chunks import forward_in_chunks, inverse_in_chunks, refine_in_chunks, stream
from melglow_plugin.inference.cuda_graphs import GraphedInverse
from melglow_plugin.inference.noise import batch_noise, check_sigma, checked_seed, gaussian_noise, new_seed
from melglow_plugin.inference.refine import check_rounds
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.mel.mismatch import MismatchAlarm, mel_mismatch
from melglow_plugin.model.loss import nats_per_sample
from melglow_plugin.model.mel_model import MelModel
from melglow_plugin.processor import warn_if_emulated


class Vocoder(nn.Module):
    """A trained model with the mel that it understands.

    Args:
        flow: MelGlow, WaveGlow or LVCNetGenerator; its weights become float32.
        convention: what its mel means.
        training: facts about the training, kept with the model.
        dtype: bfloat16 or float16 run the conditioners in that precision; the flow's own arithmetic stays float32.
            ``half()``, ``bfloat16()`` and ``float()`` choose the same; ``double()`` changes nothing.
        refine: rounds of refinement after the flow (:func:`melglow_plugin.inference.refine.refine`) where a call names
            none; kept with the model.
    """

    def __init__(
        self,
        flow: MelModel,
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
        self._alarm = MismatchAlarm()
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
        self._graphed = None
        if on:
            inverse = functools.partial(self._in_precision, self.flow.with_constant_inverses().inverse)
            self._graphed = GraphedInverse(inverse, self.hop_length)
        return self

    def _apply(self, change, recurse=True):
        self._graphed = None  # it holds the weights where they were
        dtype, change = arguments.without_cast(change, self.device)
        self.dtype = dtype or self.dtype
        return super()._apply(change, recurse)

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
        lengths = arguments.checked_lengths(lengths, batch)
        first = batch[0] if lengths is None else batch[0, :, : int(lengths[0])]
        self._alarm(first, self.flow.mel_mean, self.flow.mel_std)
        if z is None:
            z = self.noise(seed, sigma, len(batch), batch.shape[-1])
        else:
            z = arguments.checked_signal(z, batch, self.hop_length, "z")
        wav = inverse_in_chunks(self._inverse, self.flow, z, batch, lengths).clamp(-1, 1)
        wav = refine_in_chunks(wav, batch, lengths, self.convention, rounds).clamp(-1, 1)
        if lengths is not None:
            samples = torch.arange(wav.shape[1], device=wav.device)
            wav = wav.masked_fill(samples >= lengths[:, None] * self.hop_length, 0.0)
        return wav[0] if mel.dim() == 2 else wav

    def mel_mismatch(self, mel: Tensor) -> float:
        """How far a mel (M, F) lies from those of the training (:func:`melglow_plugin.mel.mismatch.mel_mismatch`)."""
        return mel_mismatch(self._checked_mel(mel)[0].detach(), self.flow.mel_mean, self.flow.mel_std)

    strangeness = renamed_method("strangeness", "mel_mismatch")

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
        check_sigma(sigma)
        seed, rounds = new_seed() if seed is None else checked_seed(seed), self._rounds(refine)

        def speak(mel: Tensor, first_frame: int) -> Tensor:
            start, length = first_frame * self.hop_length, mel.shape[-1] * self.hop_length
            z = sigma * gaussian_noise(seed, start, length, self.device)
            return self._inverse(z[None], mel)[0].clamp(-1, 1)

        def refined(wav: Tensor, mel: Tensor) -> Tensor:
            return refinement.refine(wav[None], mel[None], self.convention, rounds)[0].clamp(-1, 1)

        chunks = (arguments.checked_piece(piece, self.convention.n_mels, self.device) for piece in mel_chunks)
        reach = refinement.reach_frames(self.convention, rounds)
        memory, hop = self.flow.memory_frames, self.hop_length
        yield from stream(speak, refined if rounds else None, chunks, context, memory, reach, hop)

    @torch.no_grad()
    def encode(self, wav: Tensor, mel: Tensor | None = None) -> Tensor:
        """The latent of a recording, (T,) -> (F * hop_length,) or (B, T) -> (B, F * hop_length).

        ``mel`` is that of the recording where none is given. Behind the recording's end the last hop is filled by
        reflection, as its mel sees it.
        """
        wavs, mels = self._pair(wav, mel, "encode")
        z, _ = self._forward(arguments.filled_to_frames(wavs, mels, self.hop_length), mels)
        return z[0] if wav.dim() == 1 else z

    @torch.no_grad()
    def decode(self, z: Tensor, mel: Tensor) -> Tensor:
        """The inverse of :meth:`encode`: ``z`` (T,) or (B, T) and its mel -> wav, not clamped."""
        arguments.check_likelihood(self.flow, "decode")
        batch = self._checked_mel(mel)
        z = arguments.checked_signal(z, batch, self.hop_length, "z")
        wav = inverse_in_chunks(self._inverse, self.flow, z, batch, None)
        return wav[0] if mel.dim() == 2 else wav

    @torch.no_grad()
    def score(self, wav: Tensor, mel: Tensor | None = None, sigma: float = 1.0) -> Tensor:
        """Negative log-likelihood of recordings, (T,) or (B, T) -> nats per sample (B,); lower is more likely.

        Whole hops count; ``mel`` is that of the recording where none is given; ``sigma`` that of the prior in training.
        """
        wavs, mels = self._pair(wav, mel, "score")
        frames = min(wavs.shape[-1] // self.hop_length, mels.shape[-1])
        if abs(frames - mels.shape[-1]) > 1 or frames == 0:
            raise ValueError(
                f"wav has {wavs.shape[-1]} samples, {frames} hops of {self.hop_length}; mel has {mels.shape[-1]} frames"
            )
        return nats_per_sample(*self._forward(wavs[:, : frames * self.hop_length], mels[..., :frames]), sigma)

    def noise(self, seed: int | Sequence[int] | None, sigma: float, batch: int, frames: int) -> Tensor:
        """The latent (B, T) that a call with these arguments draws for ``batch`` mels of ``frames`` frames."""
        return batch_noise(seed, sigma, batch, frames * self.hop_length, self.device)

    def _rounds(self, refine: int | None) -> int:
        return self.refine if refine is None else check_rounds(refine)

    def _forward(self, wav: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
        return self._in_precision(forward_in_chunks, self.flow, wav, mel)

    def _inverse(self, z: Tensor, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        if self._graphed is not None:
            return self._graphed(z, mel, lengths)
        return self._in_precision(self.flow.inverse, z, mel, lengths)

    def _in_precision(self, run: Callable, *args):
        if self.device.type == "cpu":
            warn_if_emulated(self.dtype)
        reduced = self.dtype not in (None, torch.float32)
        with torch.autocast(self.device.type, self.dtype if reduced else torch.bfloat16, enabled=reduced):
            return run(*args)

    def _checked_mel(self, mel: Tensor, allow_empty: bool = False) -> Tensor:
        return arguments.checked_mel(mel, self.convention.n_mels, self.device, allow_empty)

    def _pair(self, wav: Tensor, mel: Tensor | None, verb: str) -> tuple[Tensor, Tensor]:
        arguments.check_likelihood(self.flow, verb)
        wavs = arguments.checked_wav(wav, self.device)
        mels = self.convention.extract(wavs) if mel is None else self._checked_mel(mel)
        if len(mels) != len(wavs):
            raise ValueError(f"wav holds {len(wavs)} recordings, mel {len(mels)}")
        return wavs, mels
