"""Trained cells in the formats that other software loads."""
