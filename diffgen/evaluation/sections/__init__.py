"""The questions that a report answers: one module each, from sets to a section and its figures."""
