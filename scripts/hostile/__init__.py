"""The parts of hostile_figures.py: what hostile and unlucky clients do."""
