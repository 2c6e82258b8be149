"""MelGlow in ESPnet: a task for ESPnet2's trainer. Import only where ESPnet is installed."""
