"""``python -m melglow_plugin.espnet.train``: ESPnet2's command line for :class:`VocoderTask`."""

from melglow_plugin import processor


def main(cmd=None) -> None:
    """Train, or collect statistics with ``--collect_stats true``; all of ESPnet2's options apply."""
    processor.prepare()  # before torch is there
    from melglow_plugin.espnet.task import VocoderTask

    VocoderTask.main(cmd=cmd)


if __name__ == "__main__":
    main()
