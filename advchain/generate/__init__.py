"""Engines that answer benchmark prompts."""
