"""What the dashboard of Coqui's Trainer shows of a vocoder."""

from typing import Any

from torch import Tensor
from TTS.vocoder.utils.generic_utils import plot_results

TEST_RECORDINGS = 2  # of which test_run writes copies


class Dashboard:
    """Figures and audio for a model that has ``best_vocoder``, ``dataset``, ``config``, ``ap`` and ``device``."""

    def train_log(self, batch: dict[str, Tensor], outputs: dict, logger, steps: int) -> None:
        """Figures and audio of a copy of the batch's first crop."""
        figures, audio = self._copy(batch["input"][0], batch["waveform"][0], "train/")
        logger.train_figures(steps, figures)
        logger.train_audios(steps, {"train/audio": audio}, self.ap.sample_rate)

    def eval_log(self, batch: dict[str, Tensor], outputs: dict, logger, steps: int) -> None:
        """As :meth:`train_log`."""
        figures, audio = self._copy(batch["input"][0], batch["waveform"][0], "eval/")
        logger.eval_figures(steps, figures)
        logger.eval_audios(steps, {"eval/audio": audio}, self.ap.sample_rate)

    def test_run(self, trainer) -> dict[str, dict]:
        """Copies of whole evaluation recordings: ``{"figures": ..., "audios": ...}`` for :meth:`test_log`."""
        figures, audios = {}, {}
        dataset = self.dataset((trainer.eval_samples or [])[:TEST_RECORDINGS], is_eval=True)
        for index in range(len(dataset)):
            mel = dataset.mel(index).to(self.device)
            wav = dataset.load(dataset.items[index][0])
            drawn, audios[f"test_{index}/audio"] = self._copy(mel, wav, f"test_{index}/")
            figures.update(drawn)
        return {"figures": figures, "audios": audios}

    def test_log(self, outputs: dict[str, dict], logger, steps: int) -> None:
        logger.test_figures(steps, outputs["figures"])
        logger.test_audios(steps, outputs["audios"], self.ap.sample_rate)

    def _copy(self, mel: Tensor, wav: Tensor, prefix: str) -> tuple[dict, Any]:
        copy = self.best_vocoder(mel, sigma=self.config.sigma, seed=self.config.seed, refine=self.config.refine)
        length = min(len(copy), len(wav))  # of a whole recording, the last hop reaches beyond it
        copy, wav = copy[:length], wav[:length]
        return plot_results(copy[None], wav[None], self.ap, prefix), copy.cpu().numpy()
