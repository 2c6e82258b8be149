"""The Hugging Face Hub, against a local stand-in of its cache and its upload: no network."""

import hashlib
import re
import shutil

import pytest
import torch
from conftest import stir

from melglow_plugin import MelConvention, MelGlow, Vocoder, checkpoint
from melglow_plugin.checkpoint.pretrained import pretrained_models

huggingface_hub = pytest.importorskip("huggingface_hub")
CONVENTION = MelConvention.espnet(n_fft=256, hop_length=64, n_mels=20)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def vocoder():
    flow = stir(MelGlow(n_mels=20, hop_length=64, n_flows=2, channels=4, n_layers=2), 0.02)
    return Vocoder(flow, CONVENTION, {"steps": 3, "data": "LJ Speech"})


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the Hub, and no way out of this machine."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def place(cache, name, folder):
    """As the Hub's client lays out what it has downloaded."""
    root = cache / f"models--{name.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(COMMIT)
    shutil.copytree(folder, root / "snapshots" / COMMIT)


def test_a_name_is_found_in_the_cache(vocoder, cache, tmp_path):
    vocoder.save_pretrained(tmp_path / "model")
    place(cache, "someone/melglow", tmp_path / "model")
    mel = torch.randn(20, 7) - 2
    found = Vocoder.from_pretrained("someone/melglow")
    assert torch.equal(found(mel, seed=0), vocoder(mel, seed=0)) and found.convention == CONVENTION


def test_what_is_nowhere_is_one_clear_error(cache):
    with pytest.raises(ValueError, match="someone/nothing: no such folder here, and not fetched"):
        Vocoder.from_pretrained("someone/nothing")


@pytest.mark.parametrize("name", ["nothing", "./a/b", "/a/b", "a/b/c", "../a"])
def test_a_path_is_no_name_of_the_hub(cache, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where none of the names is there
    with pytest.raises(ValueError, match="no such folder, and no user/name"):
        Vocoder.from_pretrained(name)


def test_names_without_a_meaning_are_one_line_and_a_tilde_is_the_home_folder(vocoder, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, says in (
        ("", "path_or_hub_id is empty"),
        ("a" * 5000, "no such folder"),
        ("~/x", f"{tmp_path}/x: no such"),
    ):
        with pytest.raises(ValueError, match=says):
            Vocoder.from_pretrained(name)
    vocoder.save_pretrained(tmp_path / "x")
    assert Vocoder.from_pretrained("~/x").convention == CONVENTION


@pytest.mark.parametrize("name", ["melglow_universal", "pretrained/melglow_universal"])
def test_a_released_model_that_is_not_here_is_named_with_its_place(cache, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    model = pretrained_models()[0]
    for load in (Vocoder.from_pretrained, checkpoint.load):
        with pytest.raises(ValueError, match=f"^{name}: no such folder here; .*{re.escape(str(model))}$"):
            load(name)


def test_a_name_that_the_hub_forbids_is_refused(cache):
    with pytest.raises(ValueError, match="a b/c--d"):
        Vocoder.from_pretrained("a b/c--d")


@pytest.fixture
def uploads(cache, monkeypatch):
    """Stand-ins of create_repo and upload_folder that put the files where the cache has them."""
    calls = {}

    def create_repo(name, private=None, exist_ok=False):
        calls["create"] = (name, private, exist_ok)

    def upload_folder(repo_id, folder_path, commit_message, allow_patterns):
        calls["upload"] = (repo_id, commit_message, sorted(allow_patterns))
        place(cache, repo_id, folder_path)
        return "commit"

    monkeypatch.setattr(huggingface_hub, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub, "upload_folder", upload_folder)
    return calls


def test_what_is_pushed_comes_back(vocoder, cache, uploads):
    facts = {"license": "cc0-1.0", "metrics": {"bits per sample": 5.1}}
    vocoder.refine = 1
    assert vocoder.push_to_hub("someone/melglow", private=True, message="first", facts=facts) == "commit"
    assert uploads["create"] == ("someone/melglow", True, True)
    assert uploads["upload"] == ("someone/melglow", "first", ["README.md", "config.json", "model.safetensors"])
    mel = torch.randn(20, 7) - 2
    back = Vocoder.from_pretrained("someone/melglow")
    assert back.refine == 1 and torch.equal(back(mel, seed=0), vocoder(mel, seed=0))


def test_the_card_says_what_a_reader_needs(vocoder, cache, uploads):
    facts = {"license": "cc0-1.0", "metrics": {"bits per sample": 5.1}}
    vocoder.push_to_hub("someone/melglow", facts=facts)
    folder = cache / "models--someone--melglow" / "snapshots" / COMMIT
    card = (folder / "README.md").read_text()
    parameters = f"{sum(p.numel() for p in vocoder.flow.parameters()):,} parameters"
    sha256 = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    said = ("melglow", parameters, "22050 Hz, FFT 256, hop 64, 20 bins, 80 to 7600 Hz", "Data: LJ Speech", "cc0-1.0")
    for words in (*said, "| bits per sample | 5.1 |", "| steps | 3 |", sha256, '"someone/melglow"'):
        assert words in card
    metadata = huggingface_hub.ModelCard(card).data
    assert metadata.license == "cc0-1.0" and metadata.pipeline_tag == "text-to-speech"
    assert vocoder.training_facts == {"steps": 3, "data": "LJ Speech"}  # pushing changes nothing here
