"""Which synthetic images, and which of their pixels, others should learn from."""
