"""The one client for every API model: teachers and judges."""
