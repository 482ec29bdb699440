"""Photographs from disk to batches: builders, sources, transforms, the pipeline."""
