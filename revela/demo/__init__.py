"""The demo's own language models."""
