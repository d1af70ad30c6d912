"""Every promise and every table of skhyper, one command each: ``python -m benchmarks.NAME``."""
