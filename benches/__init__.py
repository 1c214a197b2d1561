"""Figures of the service beside bare baselines, all measured in one run: ``python -m benches``."""
