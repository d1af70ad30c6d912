"""The mathematics, in pure torch: bilevel problems, their algorithms, and the one loop that runs them."""
