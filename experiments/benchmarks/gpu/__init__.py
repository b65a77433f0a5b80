"""The parts of `experiments.benchmarks.gpu_suite`, one file each; the most valuable comes first.

A part is a function `measure(setup, clock, results)`. It writes what it measures into `results` at
once, so that what was measured before an error is kept, and asks the clock between measurements.
"""
