"""From a flow to audio: noise, refinement, chunks, CUDA graphs."""
