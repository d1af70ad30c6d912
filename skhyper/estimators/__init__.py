"""The scikit-learn shells: they validate, encode, run the core and store; the arithmetic is elsewhere."""
