"""Experiments and generators that no running server needs."""
