"""Sweeps: one notebook run many times, by papermill on a Dask cluster; ``wb.Sweep`` is the class users meet.

Importing this package loads none of it: the kernels of a sweep need only ``recorded_run``.
"""
