"""One file per source data set, each read into Chain rows."""
