"""Models to and from the Hugging Face Hub, through ``huggingface_hub``'s own functions."""

import os
import tempfile
from dataclasses import replace
from pathlib import Path

from melglow_plugin.checkpoint.checkpoint import Checkpoint
from melglow_plugin.checkpoint.folder import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE, save
from melglow_plugin.checkpoint.pretrained import of_name

FILES = (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE)


def found(path_or_hub_id: str | Path) -> Path:
    """A path that is there, ``~`` in it the home folder, or what :func:`download` fetches.

    Raises:
        ValueError: as of :func:`download`, or it is empty, or neither a path nor a name.
    """
    if not isinstance(path_or_hub_id, str | os.PathLike):
        raise ValueError(f"path_or_hub_id {path_or_hub_id!r} is neither a path nor a name")
    name = os.path.expanduser(path_or_hub_id)
    if not name:
        raise ValueError("path_or_hub_id is empty: name a model folder, or user/name of the Hugging Face Hub")
    if os.path.exists(name):
        return Path(name)
    if model := of_name(name):
        raise ValueError(f"{name}: no such folder here; the released model of that name is {model}")
    return download(name)


def download(name: str, revision: str | None = None) -> Path:
    """The folder of ``user/name`` in the local cache, fetched where it is not there yet; only what a model needs.

    Raises:
        ValueError: ``name`` is no ``user/name``, or the Hub has no such model, or cannot be reached.
    """
    if name.count("/") != 1 or name.startswith((".", "/")):
        raise ValueError(f"{name}: no such folder, and no user/name of the Hugging Face Hub")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ValueError(f"{name}: no such folder, and huggingface_hub is not installed to fetch it") from error
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(FILES[:2])))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ValueError(
            f"{name}: no such folder here, and not fetched from the Hugging Face Hub: {str(error).splitlines()[0]}"
        ) from error


def push(
    checkpoint: Checkpoint,
    name: str,
    *,
    private: bool | None = None,
    message: str = "A MelGlow vocoder",
    facts: dict | None = None,
):
    """Upload a model with its card; needs a token, as ``hf auth login`` stores it.

    Args:
        checkpoint: what to upload.
        name: ``user/name``; made if it is not there.
        private: who may see a repository that is made.
        message: of the commit.
        facts: added to those about the training: ``license``, ``data``, ``metrics``, and any other.

    Returns:
        What ``huggingface_hub.upload_folder`` returns, the commit with its address.
    """
    from huggingface_hub import create_repo, upload_folder

    checkpoint = replace(checkpoint, training={**checkpoint.training, **(facts or {})})
    with tempfile.TemporaryDirectory() as temporary:
        save(temporary, checkpoint, called=name)
        create_repo(name, private=private, exist_ok=True)
        return upload_folder(repo_id=name, folder_path=temporary, commit_message=message, allow_patterns=list(FILES))
