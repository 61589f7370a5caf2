"""Tests of scripts/virtual that need no QEMU."""
