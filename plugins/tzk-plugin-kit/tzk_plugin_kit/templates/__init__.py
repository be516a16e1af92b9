"""Templates of plugins, one folder a kind, which `tzk new-plugin` fills in."""
