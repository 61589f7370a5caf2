"""The vm ring: the firmware image under QEMU with UEFI, driven over QMP and its serial line."""
