"""Tests of the allocation solver."""
