"""How a location-variable convolution is computed.

Modules of fused kernels are imported where they are used, so that a machine without a GPU needs no Triton.
"""
