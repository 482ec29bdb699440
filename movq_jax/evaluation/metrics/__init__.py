"""Metrics: images or features in, numbers out, in float64."""
