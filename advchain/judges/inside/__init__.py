"""Scripts that run inside the sandbox, each in a process of its own; they import nothing of the package."""
