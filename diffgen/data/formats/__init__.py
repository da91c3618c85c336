"""The file formats: each module opens one kind of file as a grid of level-0 pixels."""
