"""The scenarios: lists of cases, and how each is measured."""
