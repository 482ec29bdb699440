"""Weights in formats that others wrote, read without trust and without their code."""
