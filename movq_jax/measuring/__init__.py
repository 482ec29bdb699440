"""How large a model is and how fast it runs: what `describe` and `benchmark` report."""
