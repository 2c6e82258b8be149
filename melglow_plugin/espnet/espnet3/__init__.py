"""MelGlow as a system of ESPnet3: the task that ESPnet2 trains, under Lightning and Dask."""
