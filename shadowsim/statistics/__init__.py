"""Turns frames into estimates with honest intervals."""
