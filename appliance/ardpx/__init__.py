"""ARDPX: the access and distribution proxy, the only thing the outside can touch."""
