"""How a location-variable convolution is computed.

Modules of fused kernels are imported at their first use, so that a machine without a GPU needs no Triton.
"""


def fused():
    """The module of the fused convolution."""
    from melglow_plugin.model.kernels import triton

    return triton


def fused_layers():
    """The module of the fused layers."""
    from melglow_plugin.model.kernels import layers

    return layers
