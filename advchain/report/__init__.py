"""Scores, tables, figures, report."""
