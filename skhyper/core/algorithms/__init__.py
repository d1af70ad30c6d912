"""Algorithms: how the weights respond to the hyperparameters, and the hypergradient that follows; one file each."""
