"""Stands for the host where it is not installed."""
