"""A fixed-point design of a routed ViT for FPGAs, checked by C simulation, with a cost bound."""
