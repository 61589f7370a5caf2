"""From a clone to the firmware: what must be on the host, the build tools, the tree, the disk image, the artifacts.

What `scripts/bootstrap` uses stands on the standard library alone, since it runs before anything is installed.
"""
