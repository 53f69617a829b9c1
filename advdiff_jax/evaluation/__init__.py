"""What came out: known truth, fidelity, memorisation, and the report that shows them."""
