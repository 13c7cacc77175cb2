"""Small data set written for this project, shipped with it."""
