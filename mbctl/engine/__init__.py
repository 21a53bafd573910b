"""What serves the verbs. ``interface`` says what an engine is; ``local`` is core + journal."""
