"""Labs: machines that boot the firmware on virtual LANs, for tests and for trying things by hand."""
