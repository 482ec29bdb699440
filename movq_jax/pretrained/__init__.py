"""Trained models on disk: the bundle, loading it, its fingerprint."""
