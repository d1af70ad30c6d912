"""Networks whose weights come from noise: generators, the marginal likelihood, training, predictive mixtures."""
