"""The language models of the scale tiny."""
