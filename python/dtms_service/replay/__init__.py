"""A history file becomes a lockstep run: driver, entry rules, what a run leaves behind."""
