"""``python -m melglow_plugin.espnet.train``: ESPnet2's command line for :class:`VocoderTask`."""

import sys

from melglow_plugin import processor


def main(cmd=None) -> None:
    """Train, or collect statistics with ``--collect_stats true``; all of ESPnet2's options apply."""
    processor.prepare()  # before torch is there
    import torch

    from melglow_plugin.espnet.task import VocoderTask

    args = VocoderTask.get_parser().parse_args(cmd)
    if args.ngpu > (gpus := torch.cuda.device_count()):
        print(f"--ngpu {args.ngpu}: torch finds {gpus} CUDA devices here (--ngpu 0 trains on the CPU)", file=sys.stderr)
        sys.exit(2)
    VocoderTask.main(args)


if __name__ == "__main__":
    main()
