"""ALPHA-REN: the Python package that runs on the box."""
