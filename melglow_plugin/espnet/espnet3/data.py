"""What ESPnet3 asks of a corpus: a builder, a dataset, and a preprocessor that cuts crops."""

from pathlib import Path

import numpy as np
from espnet2.train.preprocessor import AbsPreprocessor
from espnet3.components.data.base_dataset import BaseDataset
from espnet3.components.data.dataset_builder import DatasetBuilder as AbsDatasetBuilder
from espnet3.contract import Field

from melglow_plugin.espnet.task import Crop
from melglow_plugin.files import read_scp, read_wav
from melglow_plugin.mel.convention import MelConvention
from melglow_plugin.training.corpus import SETS, find_recordings, read_metadata, split, write_data_dir


class DatasetBuilder(AbsDatasetBuilder):
    """An LJSpeech tree -> Kaldi-style directories, as stage 0 of ``egs/ljspeech/voc1`` writes them."""

    def is_source_prepared(self, corpus: str, **_) -> bool:
        return (Path(corpus) / "metadata.csv").is_file()

    def prepare_source(self, corpus: str, **_) -> None:
        raise ValueError(f"corpus {corpus} has no metadata.csv; egs/ljspeech/voc1/run.sh --stage -1 downloads one")

    def is_built(self, data_dir: str, **_) -> bool:
        return all((Path(data_dir) / name / "wav.scp").is_file() for name in SETS)

    def build(self, corpus: str, data_dir: str) -> None:
        texts = read_metadata(Path(corpus))
        recordings = find_recordings(Path(corpus), texts)
        for name, keys in split(Path(corpus), list(texts)).items():
            write_data_dir(Path(data_dir) / name, {key: recordings[key] for key in keys}, texts)


class Dataset(BaseDataset):
    """One set: ``utt_id`` and ``speech`` (T,), float32.

    Args:
        split: tr_no_dev, dev or eval1.
        data_dir: folder that holds the sets.
        sample_rate: Hz of every recording.
    """

    fields = (Field("utt_id", "text"), Field("speech", "audio"))

    def __init__(self, split: str, data_dir: str, sample_rate: int) -> None:
        self.items = list(read_scp(Path(data_dir) / split / "wav.scp").items())
        self.sample_rate = sample_rate

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict:
        key, path = self.items[index]
        return {"utt_id": key, "speech": read_wav(path, self.sample_rate).numpy()}


class Crops(AbsPreprocessor):
    """The crops that the ESPnet2 task cuts; where ``frames`` is None, whole recordings."""

    def __init__(self, train: bool, frames: int | None, feats_extract_conf: dict) -> None:
        super().__init__(train)
        self.crop = None if frames is None else Crop(MelConvention.espnet(**feats_extract_conf), frames, train)

    def __call__(self, uid: str, data: dict) -> dict[str, np.ndarray]:
        if self.crop is None:
            return {"speech": data["speech"]}
        return {name: value.numpy() for name, value in self.crop(data["utt_id"], data["speech"]).items()}
