"""Tests of image/cutting."""
