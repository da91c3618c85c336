"""The sections of a report, a module each: from sets to a verdict and its figures."""
