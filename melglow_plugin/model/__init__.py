"""The paper: MelGlow and WaveGlow, their layers and losses. Needs torch and numpy alone."""
