"""How a location-variable convolution is computed."""
