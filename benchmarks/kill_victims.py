"""The runs that ``kill.py`` kills: a tiny model under ESPnet2's trainer, and under Coqui's."""

import contextlib
import json
import mmap
import re
import shutil
import struct
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
NUMBERED = re.compile(r"(checkpoint|best_model)_\d+\.pth")  # what Coqui's trainer continues from


class Victim:
    """A route's training in a folder; subclasses know the host.

    Args:
        folder: where everything is written.
        epochs: epochs of a whole run.
    """

    interval: int  # steps from one checkpoint to the next

    def __init__(self, folder: Path, epochs: int) -> None:
        self.folder, self.epochs = folder, epochs
        self.steps = mmap.mmap(-1, 8)  # shared with the forks: steps begun

    def begin(self, step: int) -> None:
        self.steps[:] = struct.pack("<q", step)

    @property
    def begun(self) -> int:
        return struct.unpack("<q", self.steps[:])[0]

    def train(self, exp: Path) -> None:
        """Train to the last epoch, or on from the checkpoint that is there."""
        raise NotImplementedError

    def saved(self, exp: Path) -> int:
        """Steps in the newest checkpoint, 0 where there is none."""
        raise NotImplementedError

    def last(self, exp: Path) -> Path:
        """The checkpoint that a finished run is compared by."""
        raise NotImplementedError


class Espnet(Victim):
    interval = 3

    def __init__(self, folder: Path, epochs: int) -> None:
        super().__init__(folder, epochs)
        import melglow_plugin.espnet.task  # noqa: F401  what main imports is then there for every fork
        from melglow_plugin.espnet.model import ESPnetVocoderModel
        from melglow_plugin.espnet.train import main

        self.main, start = main, ESPnetVocoderModel.start_step

        def counted(model) -> tuple[bool, bool | None]:
            kind = start(model)
            self.begin(int(model.steps))
            return kind

        ESPnetVocoderModel.start_step = counted
        lines = "".join(f"{path.stem} {path}\n" for path in recordings(folder))
        (folder / "wav.scp").write_text(lines)

    def train(self, exp: Path) -> None:
        options = ["--config", str(ROOT / "conf" / "melglow_tiny.yaml"), "--output_dir", str(exp), "--resume", "true",
                   "--max_epoch", str(self.epochs), "--num_att_plot", "0", "--use_matplotlib", "false",
                   "--use_tensorboard", "false", "--keep_nbest_models", "2"]  # fmt: skip
        for name in ("train", "valid"):
            scp = self.folder / "wav.scp"
            options += [
                f"--{name}_data_path_and_name_and_type",
                f"{scp},speech,sound",
                f"--{name}_shape_file",
                str(scp),
            ]
        self.main(options)

    def saved(self, exp: Path) -> int:
        import torch

        path = exp / "checkpoint.pth"
        return int(torch.load(path, weights_only=True)["model"]["steps"]) if path.exists() else 0

    def last(self, exp: Path) -> Path:
        return exp / "checkpoint.pth"


class Coqui(Victim):
    interval = 2

    def __init__(self, folder: Path, epochs: int) -> None:
        super().__init__(folder, epochs)
        import TTS.bin.train_vocoder as command

        import melglow_plugin.coqui

        melglow_plugin.coqui.register()
        from melglow_plugin.coqui.model import Melglow

        self.main, start = command.main, Melglow.on_train_step_start

        def counted(model, trainer) -> None:
            start(model, trainer)
            self.begin(trainer.total_steps_done)

        Melglow.on_train_step_start = counted
        Melglow.train_log = Melglow.eval_log = lambda *_: None  # pictures take longer than the training
        recordings(folder)
        self.epochs = 1  # once in this process: what the host imports late is then there for every fork
        with contextlib.suppress(SystemExit):
            self.train(folder / "warm")
        self.epochs = epochs

    def train(self, exp: Path) -> None:
        run = next(iter(sorted(exp.glob("run*"))), None) if exp.exists() else None
        if run and any(NUMBERED.fullmatch(path.name) for path in run.iterdir()):
            sys.argv = ["train_vocoder", "--continue_path", str(run)]
        else:  # killed before there was a checkpoint: begun anew
            shutil.rmtree(exp, ignore_errors=True)
            exp.mkdir()
            config = {
                "model": "melglow", "run_name": "run", "output_path": str(exp), "data_path": str(self.folder / "wavs"),
                "model_params": {"n_flows": 4, "early_every": 2, "channels": 4, "n_layers": 2}, "eval_split_size": 1,
                "epochs": self.epochs, "batch_size": 2, "seq_len": 2048, "eval_seq_len": 4096, "save_step": 2,
                "save_n_checkpoints": 2, "save_checkpoints": True, "num_loader_workers": 0,
                "num_eval_loader_workers": 0, "lr": 1e-3, "run_eval": True, "test_delay_epochs": 10**6,
            }  # fmt: skip
            (exp / "config.json").write_text(json.dumps(config))
            sys.argv = ["train_vocoder", "--config_path", str(exp / "config.json")]
        self.main()

    def saved(self, exp: Path) -> int:
        import torch

        paths = [path for path in exp.glob("run*/*.pth") if NUMBERED.fullmatch(path.name)]
        return max((torch.load(path, weights_only=True)["step"] for path in paths), default=0)

    def last(self, exp: Path) -> Path:
        return max(exp.glob("run*/checkpoint_*.pth"), key=lambda path: int(path.stem.split("_")[1]))


def recordings(folder: Path) -> list[Path]:
    """Four made-up recordings in ``folder/wavs``."""
    import soundfile

    from melglow_plugin.mel.conversion import example_speech

    (folder / "wavs").mkdir(exist_ok=True)
    paths = [folder / "wavs" / f"{i}.wav" for i in range(4)]
    for i, path in enumerate(paths):
        wav = example_speech(22_050).flatten()[: 11_025 + 1000 * i]
        soundfile.write(path, (0.5 * wav / wav.abs().max()).numpy(), 22_050)
    return paths
