"""What a target costs before anything is spent."""
