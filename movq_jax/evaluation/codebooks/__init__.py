"""How the codes of a codebook are used: counted, drawn and reported."""
