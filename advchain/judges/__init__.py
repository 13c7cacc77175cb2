"""One file per judge kind: a title (first docstring line), VERSION, MEASURES and `build(spec, work)`; importing one loads nothing heavy."""
