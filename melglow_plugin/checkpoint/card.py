"""The model card: a README for a model folder."""

import json

from melglow_plugin.checkpoint.checkpoint import Checkpoint

REFINEMENT = (
    "\nDefault: `refine={!r}`. Refinement by rounds moves the magnitudes towards the mel and keeps the phases, "
    "resynthesis computes phases anew; `vocoder(mel, refine=0)` is the model's own sample.\n"
)


def model_card(checkpoint: Checkpoint, sha256: str = "", name: str = "this folder") -> str:
    """A README for the folder, from the facts of a checkpoint.

    ``training`` may hold ``license``, ``data`` and ``metrics`` (a dict of figures), which get sections of their own.
    """
    parameters = sum(p.numel() for p in checkpoint.flow.parameters())
    kind, convention, training = checkpoint.facts()["architecture"], checkpoint.convention, dict(checkpoint.training)
    licence, metrics = training.pop("license", "apache-2.0"), training.pop("metrics", {})
    data = training.pop("data", None)
    about = "mel in, audio out" + (", exact likelihoods." if checkpoint.flow.has_likelihood else ".")
    tables = [("metric", metrics if isinstance(metrics, dict) else {"": metrics}), ("training", training)]
    return (
        "---\nlibrary_name: melglow_plugin\npipeline_tag: text-to-speech\n"
        f"license: {json.dumps(licence)}\ntags: [vocoder, {kind}]\n---\n"
        f"# {kind}, {parameters:,} parameters\n\n"
        f"A vocoder: {about}\n\n"
        "```python\nfrom melglow_plugin import Vocoder\n"
        f"vocoder = Vocoder.from_pretrained({json.dumps(name)})\n"
        f"wav = vocoder(mel)  # ({convention.n_mels}, F) -> (T,)\n```\n\n"
        f"Mel: {convention.sample_rate} Hz, FFT {convention.n_fft}, hop {convention.hop_length}, "
        f"{convention.n_mels} bins, {convention.fmin:g} to {convention.fmax:g} Hz (`config.json`).\n"
        + (REFINEMENT.format(checkpoint.refine) if checkpoint.refine else "")
        + (f"\nData: {data}\n" if data else "")
        + f"\nLicence: {licence}\n"
        + "".join(_table(head, rows) for head, rows in tables if rows)
        + (f"\nsha256 of `model.safetensors`: `{sha256}`\n" if sha256 else "")
    )


def _table(head: str, rows: dict) -> str:
    def cell(value) -> str:
        return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)

    lines = "".join(f"| {key} | {' '.join(cell(value).split())} |\n" for key, value in rows.items())
    return f"\n| {head} | |\n| --- | --- |\n{lines}"
