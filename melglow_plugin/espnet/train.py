"""``python -m melglow_plugin.espnet.train``: ESPnet2's command line for :class:`VocoderTask`."""

from melglow_plugin.espnet.task import VocoderTask


def main(cmd=None) -> None:
    """Train, or collect statistics with ``--collect_stats true``; all of ESPnet2's options apply."""
    VocoderTask.main(cmd=cmd)


if __name__ == "__main__":
    main()
