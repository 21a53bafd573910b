"""The report of a suite: floors, pages and plots, made from results alone."""
