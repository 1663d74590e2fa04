"""Finding and loading models: the registry of public pairs, repositories and folders."""
