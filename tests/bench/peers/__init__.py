"""The systems that the queue is measured beside, and the loads that are put on all of them alike.

Everything here runs inside the bench layer: the firmware's root tree with the peers' Debian packages laid over it,
in namespaces of its own, with nothing but loopback for a network.
"""
