"""What is to be done: configuration, sheets, cells, systems, and the paths of all results."""
