"""Algorithm 2, to be read beside Section 4 of the paper. No Ray in here."""
