"""The version, which a command line says before anything else is loaded; hatch reads it here, too."""

__version__ = "0.1.0"
