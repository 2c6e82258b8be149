"""How a location-variable convolution is computed."""


def fused():
    """The module of the fused kernels; imported at the first use, so that a machine without a GPU needs no Triton."""
    from melglow_plugin.model.kernels import triton

    return triton
