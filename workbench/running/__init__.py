"""A run: to step, rewind, fork, keep and take up again; the methods, their presets, and questions to ask of runs."""
