"""Figures of runs: their columns, the panels drawn of them, and records, which a notebook keeps."""
