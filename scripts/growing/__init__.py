"""The parts of growth_figures.py: servers that have much of something."""
