"""Slides and image folders → training shards → training stream."""
