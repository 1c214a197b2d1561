"""The main job: a year of real prices through the real processes, shown live."""
