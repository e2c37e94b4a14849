"""Tests that need several hosts."""
