"""Vocoder: mel in, wav out. Hosts, the command line and users call this class."""

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from melglow_plugin.checkpoint import adapt, any_file, folder, hub
from melglow_plugin.checkpoint.checkpoint import Checkpoint
from melglow_plugin.checks import renamed_method, whole_number
from melglow_plugin.inference import arguments
from melglow_plugin.inference.chunks import CHUNK_FRAMES, stream
from melglow_plugin.inference.engine import Engine
from melglow_plugin.inference.noise import batch_seeds, check_sigma, checked_seed, new_seed, noise_of
from melglow_plugin.inference.resynthesis import check_refine
from melglow_plugin.inference.sharpening import check_strength, sharpened_pieces
from melglow_plugin.inference.sharpness import AUTO, by_sharpness
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.mel.mismatch import MismatchAlarm, mel_mismatch
from melglow_plugin.model.loss import nats_per_sample
from melglow_plugin.model.mel_model import MelModel


class Vocoder(nn.Module):
    """A trained model with the convention of its mel.

    Args:
        flow: MelGlow, WaveGlow or LVCNetGenerator; its weights become float32.
        convention: definition of its mel.
        training: facts about the training, kept with the model.
        dtype: bfloat16 or float16 run the conditioners in that precision; the flow's own arithmetic stays float32.
            ``half()``, ``bfloat16()`` and ``float()`` choose the same; ``double()`` changes nothing.
        refine: rounds of refinement after the flow (:func:`melglow_plugin.inference.refine.refine`), or "resynthesis"
            (:func:`melglow_plugin.inference.resynthesis.resynthesize`), where a call names none; kept with the model.
        sharpen: strength of sharpening before the flow (:mod:`melglow_plugin.inference.sharpening`), likewise.
    """

    def __init__(
        self,
        flow: MelModel,
        convention: MelConvention,
        training: dict | None = None,
        dtype: torch.dtype | None = None,
        refine: int | str = 0,
        sharpen: float = 1.0,
    ) -> None:
        super().__init__()
        known = Checkpoint(flow, convention, {}, refine, sharpen)  # ValueError where flow and mel do not fit
        if dtype not in (None, torch.float32, torch.bfloat16, torch.float16):
            raise ValueError(f"dtype {dtype} is none of float32, bfloat16, float16")
        self.flow = flow.float()
        self.convention = convention
        self.training_facts = training or {}
        self.refine, self.sharpen = known.refine, known.sharpen
        self._alarm = MismatchAlarm()
        self._engine = Engine(self.flow, convention, dtype)
        self.eval()

    @classmethod
    def from_pretrained(
        cls, path_or_hub_id: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
    ) -> "Vocoder":
        """Load a folder written by :meth:`save_pretrained`, any other file of a model that is known
        (:func:`melglow_plugin.checkpoint.load`), or ``user/name`` from the Hugging Face Hub.

        Raises:
            ValueError: it is no such model, or torch has no such device here.
        """
        vocoder = cls.from_checkpoint(any_file.load(hub.found(path_or_hub_id)), dtype)
        try:
            return vocoder.to(device)
        except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
            raise ValueError(f"device {device}: {str(error).splitlines()[0]}") from error

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, dtype: torch.dtype | None = None) -> "Vocoder":
        """The vocoder of a checkpoint; ``dtype`` as of the class."""
        return cls(**{**vars(checkpoint), "dtype": dtype})

    @property
    def checkpoint(self) -> Checkpoint:
        """What the formats write: flow, mel, facts about the training, rounds of refinement, strength of sharpening."""
        return Checkpoint(self.flow, self.convention, self.training_facts, self.refine, self.sharpen)

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
        return Vocoder(flow, convention, facts, self.dtype, self.refine, self.sharpen)

    def push_to_hub(self, name: str, **options):
        """Upload to ``user/name`` of the Hugging Face Hub, with a model card; options as in :func:`hub.push`."""
        return hub.push(self.checkpoint, name, **options)

    def use_graphs(self, on: bool = True) -> "Vocoder":
        """Use CUDA graphs, the default on a CUDA device, or not: a graph replays a call of its length in one launch.

        The first call of a batch size and range of lengths captures its graph, a fraction of a second. Graphs are made
        anew after the weights changed in place; call this method after a change without a trace: through ``.data``, or
        by torch's optimizers with ``fused=True``. MELGLOW_CUDA_GRAPHS=0 in the environment switches all graphs off.

        Raises:
            ValueError: the vocoder is not on a CUDA device.
        """
        if on and self.device.type != "cuda":
            raise ValueError(f"graphs need a CUDA device, the vocoder is on {self.device}")
        self._engine.graphs = on
        self._engine.forget_graphs()
        return self

    def _apply(self, change, recurse=True):
        self._engine.forget_graphs()  # they hold the weights where they were
        dtype, change = arguments.without_cast(change, self.device)
        self._engine.dtype = dtype or self.dtype
        return super()._apply(change, recurse)

    @property
    def dtype(self) -> torch.dtype | None:
        """The precision of the conditioners; None: float32."""
        return self._engine.dtype

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
        seed: int | Sequence[int] | Tensor | None = None,
        z: Tensor | None = None,
        refine: int | str | None = None,
        sharpen: float | None = None,
    ) -> Tensor:
        """Synthesize a mel.

        Args:
            mel: (M, F) or (B, M, F) in this vocoder's convention.
            lengths: frames of each example of a padded batch, (B,).
            sigma: standard deviation of the noise.
            seed: same seed, same noise, whatever the neighbours, padding or chunks; one for all or each; None: new.
            z: the latent itself, (T,) or (B, T), instead of noise.
            refine: rounds, which move the magnitudes towards the mel; "resynthesis": phases anew as well; "auto", not
                with ``z``: rounds by how sharp each mel is. None: the model's, or with ``z`` 0: the exact inverse.
            sharpen: strength of sharpening (:mod:`melglow_plugin.inference.sharpening`); None: as above.

        Returns:
            (T,) or (B, T) float32 in [-1, 1], T = F * hop_length; zeros behind each length.

        Raises:
            ValueError: an argument has another type or shape or holds values that are not finite; the message names it.
        """
        if refine == AUTO and z is None:
            return by_sharpness(self, mel, lengths, seed, sigma, sharpen)
        options = self._checked_options(refine, sharpen, exact=z is not None)
        batch = arguments.mel_batch(mel, self.convention.n_mels, self.device)
        lengths = arguments.checked_lengths(lengths, batch)
        on_cpu = self.device.type == "cpu"
        if on_cpu or z is not None:
            arguments.check_finite(batch)
        if on_cpu:
            self._alarm(batch, lengths, self.flow.mel_mean, self.flow.mel_std)
        if z is None:
            seeds = batch_seeds(seed, len(batch))
            wav, largest = self._engine.synthesize(batch, lengths, seeds, check_sigma(sigma), *options)
        else:
            z = arguments.checked_signal(z, batch, self.hop_length, "z")
            wav = self._engine.from_latent(z, batch, lengths, *options)
        if not on_cpu:  # after the launches: both wait for the device
            if z is None and (largest is None or not math.isfinite(largest)):  # not looked at, or wrong
                arguments.check_finite(batch)
            self._alarm(batch, lengths, self.flow.mel_mean, self.flow.mel_std)
        return wav[0] if mel.dim() == 2 else wav

    def mel_mismatch(self, mel: Tensor) -> float:
        """Distance of a mel (M, F) from those of the training (:func:`melglow_plugin.mel.mismatch.mel_mismatch`)."""
        mel = arguments.one_mel(mel, self.convention.n_mels, self.device)
        return mel_mismatch(mel.detach(), self.flow.mel_mean, self.flow.mel_std)

    strangeness = renamed_method("strangeness", "mel_mismatch")

    @torch.no_grad()
    def stream(
        self,
        mel_chunks: Iterable[Tensor],
        *,
        sigma: float = 0.6,
        seed: int | None = None,
        context_frames: int | None = None,
        refine: int | str | None = None,
        sharpen: float | None = None,
    ) -> Iterator[Tensor]:
        """Synthesize a mel as it arrives; the pieces joined equal the offline result, with resynthesis nearly.

        Args:
            mel_chunks: pieces (M, F_i) of any sizes, at least one frame in all.
            sigma, seed, refine, sharpen: as in a call, but for "auto", which needs the whole mel.
            context_frames: frames that must follow a frame before its audio is computed. None: the receptive field,
                ``flow.context_frames``, for that result. Fewer give less delay and a small error: a trained model
                depends little on distant frames (docs/speed.md has the errors).

        Yields:
            Pieces of wav (T_i,). A frame's audio follows once ``context_frames`` more have arrived, or at the end; each
            round of refinement adds ``n_fft`` samples of delay, and resynthesis n_fft and five frames (without a
            postfilter three; up to two more where frames are not centred or half the n_fft is no whole number of hops).

        Raises:
            ValueError: a piece is no finite mel (M, F), there is no frame in all, or ``context_frames`` is below 0.
        """
        context = self.flow.context_frames if context_frames is None else whole_number(context_frames)
        if context is None or context < 0:
            raise ValueError(f"context_frames {context_frames!r} is no whole number from 0 on")
        sigma = check_sigma(sigma)
        seed = new_seed() if seed is None else checked_seed(seed)
        rounds, strength = self._checked_options(refine, sharpen)

        def synthesize(mel: Tensor, first_frame: int) -> Tensor:
            return self._engine.synthesize(mel[None], None, [seed], sigma, 0, start=first_frame * self.hop_length)[0][0]

        checked = (arguments.checked_piece(piece, self.convention.n_mels, self.device) for piece in mel_chunks)
        pieces = (part for piece in checked for part in piece.split(CHUNK_FRAMES, 1))  # bounds the memory
        chunks = sharpened_pieces(pieces, self.convention, strength)
        memory, postfilter = self.flow.memory_frames, self.flow.postfilter
        yield from stream(synthesize, chunks, self.convention, rounds, context, memory, postfilter)

    @torch.no_grad()
    def encode(self, wav: Tensor, mel: Tensor | None = None) -> Tensor:
        """The latent of a recording, (T,) -> (F * hop_length,) or (B, T) -> (B, F * hop_length).

        ``mel`` is that of the recording where none is given. Behind the recording's end the last hop is filled by
        reflection, as its mel sees it.
        """
        wavs, mels = self._pair(wav, mel, "encode")
        z, _ = self._engine.forward(arguments.filled_to_frames(wavs, mels, self.hop_length), mels)
        return z[0] if wav.dim() == 1 else z

    @torch.no_grad()
    def decode(self, z: Tensor, mel: Tensor) -> Tensor:
        """The inverse of :meth:`encode`: ``z`` (T,) or (B, T) and its mel -> wav, not clamped."""
        arguments.check_likelihood(self.flow, "decode")
        batch = arguments.checked_mel(mel, self.convention.n_mels, self.device)
        wav = self._engine.inverse(arguments.checked_signal(z, batch, self.hop_length, "z"), batch)
        return wav[0] if mel.dim() == 2 else wav

    @torch.no_grad()
    def score(self, wav: Tensor, mel: Tensor | None = None, sigma: float = 1.0) -> Tensor:
        """Negative log-likelihood of recordings, (T,) or (B, T) -> nats per sample (B,); lower is more likely.

        Whole hops count; ``mel`` is that of the recording where none is given; ``sigma`` that of the prior in training.
        """
        wavs, mels = self._pair(wav, mel, "score")
        samples, given = wavs.shape[-1], mels.shape[-1]
        frames = min(samples // self.hop_length, given)
        if abs(frames - given) > 1 or frames == 0:
            raise ValueError(f"wav has {samples} samples, {frames} hops of {self.hop_length}; mel has {given} frames")
        return nats_per_sample(*self._engine.forward(wavs[:, : frames * self.hop_length], mels[..., :frames]), sigma)

    def noise(self, seed: int | Sequence[int] | Tensor | None, sigma: float, batch: int, frames: int) -> Tensor:
        """The latent (B, T) that a call with these arguments draws for ``batch`` mels of ``frames`` frames."""
        return noise_of(batch_seeds(seed, batch), check_sigma(sigma), frames * self.hop_length, self.device)

    def _checked_options(self, refine: int | str | None, sharpen: float | None, exact: bool = False):
        """Both numbers of a call: its own or, where None, the model's; 0 for the ``exact`` inverse."""
        refine = (0 if exact else self.refine) if refine is None else refine
        sharpen = (0.0 if exact else self.sharpen) if sharpen is None else sharpen
        return check_refine(refine, self.convention), check_strength(sharpen)

    def _pair(self, wav: Tensor, mel: Tensor | None, verb: str) -> tuple[Tensor, Tensor]:
        arguments.check_likelihood(self.flow, verb)
        return arguments.wavs_and_mels(wav, mel, self.convention, self.device)
