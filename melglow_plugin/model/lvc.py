"""Location-variable convolution: one kernel per mel frame (Zeng et al., "MelGlow", SLT 2021, arXiv:2012.01684)."""

from torch import Tensor

from melglow_plugin.model.kernels import choice, plain


def location_variable_conv(x: Tensor, kernel: Tensor, bias: Tensor | None = None, dilation: int = 1) -> Tensor:
    """Convolve each hop of ``x`` with the kernel predicted for its mel frame.

    With the same kernel in every frame this equals ``F.conv1d`` with ``padding=dilation*(K-1)//2``.
    Taps reach across hop borders; zeros stand only before and after the utterance.

    Zeng et al., "MelGlow", 2020, arXiv:2012.01684, section 2.2.

    Args:
        x: hidden signal, (B, L, C) with L = F * H steps.
        kernel: one per frame, (B, F, K, C, D), K odd.
        bias: one per frame, (B, F, D).
        dilation: steps between taps.

    Returns:
        (B, L, D).

    On CUDA fused kernels compute it where Triton is there (:func:`melglow_plugin.model.kernels.choice.use_fused`):
    their gradients cannot be differentiated again.

    Raises:
        ValueError: L is not a multiple of F, K is even, or batch or channels of the arguments disagree.
    """
    plain.check_shapes(x, kernel, bias, dilation)
    if choice.takes_fused(x, kernel.dtype):
        try:
            from melglow_plugin.model.kernels import triton

            return triton.location_variable_conv(x, kernel, bias, dilation)
        except Exception as error:
            choice.fall_back(error)
    return plain.location_variable_conv(x, kernel, bias, dilation)
