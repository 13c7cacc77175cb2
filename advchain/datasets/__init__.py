"""Recipes mix samples into training sets."""
