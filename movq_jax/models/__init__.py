"""Linen modules: arrays in, arrays out. No config objects, no files, no data."""
