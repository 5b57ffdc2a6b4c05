"""The mean of each instruction's rows, standardised: what a relevance head reads."""
