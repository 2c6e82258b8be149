"""From a flow to audio: noise, refinement, streaming, CUDA graphs."""
