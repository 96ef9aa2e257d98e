"""Matching two images that differ by a large turn or scale."""
