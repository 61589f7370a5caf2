"""A throwaway host that is measured: the supervisor's code, the firmware's Python and tools, namespaces of its own.

Everything here runs in the firmware's root tree (`tests.bench.peers.layer`); nothing of it is left when it ends.
"""
