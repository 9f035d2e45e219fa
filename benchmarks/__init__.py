"""The figures, each beside its reference, measured in the same run: ``python -m benchmarks``. See README.md."""
