"""Section 3 of the paper: Sim, in-batch attention, and the packing of texts that both run on."""
