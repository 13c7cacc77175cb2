"""Temptation-correction and hesitation-correction: the method's data."""
