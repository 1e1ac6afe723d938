"""Batches -> trained cells."""
