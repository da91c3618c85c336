"""What `diffgen synthesize` wrote, in the forms that other tools open."""
